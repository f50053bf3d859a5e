#include "kernels/ops/word_loss.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/gemm_blocks.h"
#include "tensor/autograd.h"
#include "tensor/rows.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// What is over is a product of its own, for which the matrix is read once more.
constexpr int64_t kWholeRows = kernels::detail::kRowBlock;

/// The rows that carry a label, and as many of the first again as make the last product whole where
/// few are missing.
struct Labelled {
  Tensor index, labels;
  int64_t count = 0;
};

/// The rows that carry a label.
Tensor labelled_rows(const Tensor& labels, int64_t rows, int64_t classes) {
  if (labels.numel() != rows)
    fail(ErrorCode::Internal, "a loss over words: {} labels for {} rows", labels.numel(), rows);
  const int64_t* values = pointer<const int64_t>(labels);
  std::vector<int64_t> index;
  for (int64_t i = 0; i < rows; ++i) {
    if (values[i] == kUnlabelled) continue;
    if (values[i] < 0 || values[i] >= classes)
      fail(ErrorCode::BadInput,
           "the loss of a language model: a label is {}, and the model has {} words; check "
           "that the tokenizer belongs to the model",
           values[i], classes);
    index.push_back(i);
  }
  return int64_tensor(index);
}

Labelled whole_products(const Tensor& labels, int64_t rows, int64_t classes) {
  Labelled result;
  result.index = labelled_rows(labels, rows, classes);
  result.count = result.index.numel();
  result.labels = labels.index_select(0, result.index);
  const int64_t over = result.count % kWholeRows, missing = kWholeRows - over;
  if (over <= kWholeRows / 2) return result;
  result.index = at::cat({result.index, result.index.narrow(0, 0, 1).expand({missing})});
  result.labels = at::cat({result.labels, at::full({missing}, kUnlabelled, labels.options())});
  return result;
}

/// Sums of one sweep over the chunks.
struct Sweep {
  double sum = 0, count = 0;
  Tensor dx, dweight, dbias;  // undefined: not wanted
};

/// Products of the gradient of one chunk of logits.
void add_gradients(const Tensor& dlogits, const Tensor& x, int64_t begin,
                   const WordProjection& words, Sweep& sweep) {
  const Tensor g = dense_as(dlogits, x.scalar_type());
  if (sweep.dx.defined())
    multiply_weight(g, {words.weight, words.copies}, false, sweep.dx.narrow(0, begin, g.size(0)),
                    Tensor());
  if (sweep.dweight.defined())
    kernels::gemm({g.data_ptr(), dtype_of(g), g.size(0), g.size(1), true},
                  {x.data_ptr(), dtype_of(x), x.size(0), x.size(1)},
                  {sweep.dweight.data_ptr(), dtype_of(sweep.dweight), sweep.dweight.size(0),
                   sweep.dweight.size(1)},
                  nullptr, begin > 0);
  if (sweep.dbias.defined()) sweep.dbias.add_(dlogits.sum(0));
}

/// Logits of a chunk, in the master type.
Tensor chunk_logits(const Tensor& x, const WordProjection& words) {
  Tensor logits =
      at::empty({x.size(0), words.weight.size(0)}, x.options().dtype(master_of(dtype_of(x))));
  multiply_weight(x, {words.weight, words.copies}, true, logits, words.bias);
  return logits;
}

void sweep_chunk(const Tensor& x, const Tensor& labels, int64_t begin, const WordProjection& words,
                 const Tensor& class_weights, double smoothing, Sweep& sweep) {
  const Tensor logits = chunk_logits(x, words);
  const bool gradient = sweep.dx.defined() || sweep.dweight.defined() || sweep.dbias.defined();
  double count = 0;
  dispatch(logits, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    // The gradient takes the place of the logits.
    sweep.sum += kernels::cross_entropy<T>(
        pointer<T>(logits), pointer<const int64_t>(labels), pointer<const T>(class_weights),
        smoothing, logits.size(0), logits.size(1), gradient ? pointer<T>(logits) : nullptr, &count);
  });
  sweep.count += count;
  if (gradient) add_gradients(logits, x, begin, words, sweep);
}

}  // namespace

int64_t word_chunk_rows(int64_t classes, int64_t bytes) {
  return std::max<int64_t>(1, bytes / (4 * std::max<int64_t>(1, classes)) / kWholeRows) *
         kWholeRows;
}

CrossEntropy word_cross_entropy(const Tensor& x_in, const WordProjection& given,
                                const Tensor& labels, const Tensor& class_weights, double smoothing,
                                int64_t chunk_rows) {
  const int64_t classes = given.weight.size(0);
  const Labelled labelled = whole_products(labels, x_in.size(0), classes);
  const Tensor x = x_in.detach().index_select(0, labelled.index), &own = labelled.labels;
  const Tensor weight = given.weight.detach();
  const WordProjection words{weight, given.bias.defined() ? given.bias.detach() : Tensor(),
                             given.copies};
  const at::ScalarType master = master_of(dtype_of(x));
  const at::TensorOptions made = weight.options().dtype(master);
  Sweep sweep;
  if (wants_gradient(x_in)) sweep.dx = at::empty_like(x);
  if (wants_gradient(given.weight))
    sweep.dweight =
        labelled.count > 0 ? at::empty(weight.sizes(), made) : at::zeros(weight.sizes(), made);
  if (wants_gradient(given.bias)) sweep.dbias = at::zeros({classes}, x.options().dtype(master));
  const int64_t step = chunk_rows > 0 ? chunk_rows : word_chunk_rows(classes);
  for (int64_t begin = 0; begin < x.size(0); begin += step) {
    const int64_t rows = std::min(step, x.size(0) - begin);
    sweep_chunk(x.narrow(0, begin, rows), own.narrow(0, begin, rows), begin, words, class_weights,
                smoothing, sweep);
  }
  const Tensor sum = record(
      at::scalar_tensor(sweep.sum, at::kDouble), {x_in, given.weight, given.bias},
      "word_cross_entropy",
      [index = labelled.index.narrow(0, 0, labelled.count),
       dx = sweep.dx.defined() ? sweep.dx.narrow(0, 0, labelled.count) : Tensor(),
       dw = sweep.dweight, db = sweep.dbias, rows = x_in.size(0)](const Tensors& g) -> Tensors {
        const double factor = g[0].item<double>();
        const auto scaled = [factor](const Tensor& d) {
          return !d.defined() || factor == 1.0 ? d : d * factor;
        };
        Tensor all;
        if (dx.defined())
          all = at::zeros({rows, dx.size(1)}, dx.options()).index_copy_(0, index, scaled(dx));
        return {all, scaled(dw), scaled(db)};
      });
  return {sum, sweep.count};
}

Tensor row_losses(const Tensor& logits, const Tensor& labels) {
  const Tensor z = logits.detach().to(at::kDouble);
  const Tensor skipped = labels.eq(kUnlabelled);
  const Tensor chosen = z.gather(1, labels.masked_fill(skipped, 0).unsqueeze(1)).squeeze(1);
  return (z.logsumexp(1) - chosen).masked_fill(skipped, 0);
}

Tensor word_row_losses(const Tensor& x_in, const WordProjection& words, const Tensor& labels,
                       int64_t chunk_rows) {
  const int64_t classes = words.weight.size(0);
  const Tensor index = labelled_rows(labels, x_in.size(0), classes);
  const Tensor x = x_in.detach().index_select(0, index), own = labels.index_select(0, index);
  const WordProjection plain{words.weight.detach(),
                             words.bias.defined() ? words.bias.detach() : Tensor(), words.copies};
  Tensor result = at::zeros({x_in.size(0)}, at::kDouble);
  const int64_t step = chunk_rows > 0 ? chunk_rows : word_chunk_rows(classes);
  for (int64_t begin = 0; begin < x.size(0); begin += step) {
    const int64_t rows = std::min(step, x.size(0) - begin);
    const Tensor logits = chunk_logits(x.narrow(0, begin, rows), plain);
    result.index_copy_(0, index.narrow(0, begin, rows),
                       row_losses(logits, own.narrow(0, begin, rows)));
  }
  return result;
}

}  // namespace attune
