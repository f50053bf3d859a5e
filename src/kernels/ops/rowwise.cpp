#include "kernels/ops/rowwise.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "kernels/detail/runtime.h"
#include "tensor/autograd.h"
#include "tensor/late_rows.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

Tensor activated(kernels::Activation f, const Tensor& x) {
  Tensor y = at::empty_like(x);
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::activation_forward(f, pointer<T>(x), pointer<T>(y), x.numel());
  });
  return y;
}

Tensor gated(kernels::Activation f, const Tensor& gate, const Tensor& up) {
  Tensor y = at::empty_like(up);
  dispatch(up, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::gated_forward(f, pointer<T>(gate), pointer<T>(up), pointer<T>(y), up.numel());
  });
  return y;
}

}  // namespace

Tensor activation(kernels::Activation f, const Tensor& x_in) {
  const Tensor x = x_in.detach().contiguous();
  return record(
      activated(f, x), {x_in}, "activation",
      [f, x](const Tensors& g) -> Tensors {
        const Tensor dx = place_of(g[0], x.scalar_type());
        const Tensor dy = dense_as(g[0], x.scalar_type());
        dispatch(x, [&](auto* tag) {
          using T = std::remove_pointer_t<decltype(tag)>;
          kernels::activation_backward(f, pointer<T>(x), pointer<T>(dy), pointer<T>(dx), x.numel());
        });
        return {dx};
      },
      [f, x] { return activated(f, x); });
}

Tensor gated_activation(kernels::Activation f, const Tensor& gate_in, const Tensor& up_in) {
  const Tensor gate = gate_in.detach().contiguous(), up = up_in.detach().contiguous();
  return record(
      gated(f, gate, up), {gate_in, up_in}, "gated_activation",
      [f, gate, up](const Tensors& g) -> Tensors {
        const Tensor dup = place_of(g[0], up.scalar_type());
        const Tensor dy = dense_as(g[0], up.scalar_type());
        const Tensor dgate = at::empty_like(gate);
        dispatch(up, [&](auto* tag) {
          using T = std::remove_pointer_t<decltype(tag)>;
          kernels::gated_backward(f, pointer<T>(gate), pointer<T>(up), pointer<T>(dy),
                                  pointer<T>(dgate), pointer<T>(dup), up.numel());
        });
        return {dgate, dup};
      },
      [f, gate, up] { return gated(f, gate, up); });
}

namespace {
Tensor apply_mask(const Tensor& x, const DropSite& drop) {
  Tensor y = at::empty_like(x);
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::dropout(pointer<T>(x), pointer<T>(y), x.size(0), x.size(1), drop.kernel());
  });
  return y;
}
}  // namespace

Tensor dropout(const Tensor& x, const DropSite& drop) {
  if (!drop.kernel().on()) return x;
  return record(apply_mask(x.detach().contiguous(), drop), {x}, "dropout",
                [drop, type = x.scalar_type()](const Tensors& g) -> Tensors {
                  return {apply_mask(dense_as(g[0], type), drop)};
                });
}

namespace {

void check_indices(const Tensor& index, int64_t vocabulary, size_t table) {
  const int32_t* values = pointer<const int32_t>(index);
  for (int64_t i = 0; i < index.numel(); ++i)
    if (values[i] < 0 || values[i] >= vocabulary)
      fail(ErrorCode::BadInput,
           "looking up an embedding: row {} has index {} in table {}, which has {} rows; check the "
           "tokenizer, "
           "token_type_ids and the text's length against the model's config.json",
           i, values[i], table, vocabulary);
}

template <class T>
void gather(const Tensors& tables, const Tensors& indices, const Tensor& y) {
  using A = kernels::acc_t<T>;
  std::vector<const A*> table;
  std::vector<const int32_t*> index;
  for (size_t i = 0; i < tables.size(); ++i) {
    table.push_back(pointer<const A>(tables[i]));
    index.push_back(pointer<const int32_t>(indices[i]));
  }
  kernels::embedding_forward<T>(static_cast<int>(tables.size()), table.data(), index.data(),
                                y.size(0), y.size(1), pointer<T>(y));
}

/// A frozen table of at least so many bytes stays in its file: a row that is touched there would
/// bring 64 KiB of its neighbours into the process, and with them soon the table.
constexpr size_t kTableInFile = size_t{32} << 20;

/// A table in the master type and the rows to take of it; where the table stays in its file or is
/// in half precision, those rows alone.
struct Lookup {
  Tensor table, index;
};

/// The rows of a large table that is as its file has it, by reading them there; undefined where it
/// is not.
Tensor rows_in_file(const Tensor& table, const Tensor& index) {
  const size_t bytes = static_cast<size_t>(table.nbytes());
  if (bytes < kTableInFile || version_of(table) != 0) return Tensor();
  const std::optional<FilePlace> place = place_in_file(table.data_ptr(), bytes);
  if (!place) return Tensor();
  const int64_t rows = index.numel();
  const Tensor read = at::empty({rows, table.size(1)}, table.options().requires_grad(false));
  const size_t row = bytes / static_cast<size_t>(table.size(0));
  const int32_t* from = pointer<const int32_t>(index);
  char* to = static_cast<char*>(read.data_ptr());
  std::atomic<bool> all{true};
  kernels::detail::share_out_each(rows, 64, [&](int64_t i) {
    if (!place->read(static_cast<size_t>(from[i]) * row, row, to + static_cast<size_t>(i) * row))
      all = false;
  });
  return all ? read : Tensor();
}

Lookup lookup(const Tensor& table, const Tensor& index, bool trained, at::ScalarType master) {
  const bool half = table.scalar_type() != master;
  Tensor rows = trained ? Tensor() : rows_in_file(table, index);
  if (!rows.defined() && !half) return {table, index};
  if (!rows.defined()) rows = table.index_select(0, index);
  return {dense_as(rows, master), at::arange(index.numel(), index.options())};
}

/// A batch reads few rows: one in so many at most.
constexpr int64_t kFewRows = 4;

/// What the rows of dy add up to by the index of each, into zeroed `sums` [*, cols].
void add_rows(const Tensor& dy, const Tensor& index, const Tensor& sums) {
  dispatch(dy, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::embedding_backward<T>(pointer<T>(dy), pointer<const int32_t>(index), dy.size(0),
                                   dy.size(1), sums.size(0), pointer<kernels::acc_t<T>>(sums));
  });
}

Tensor dense_gradient(const Tensor& dy, const Tensor& index, const Tensor& table, int64_t padding) {
  const Tensor gradient = at::zeros_like(table);
  add_rows(dy, index, gradient);
  if (padding >= 0 && padding < table.size(0)) gradient.select(0, padding).zero_();
  return gradient;
}

Tensor sparse_gradient(const Tensor& dy, const Tensor& index, const Tensor& table,
                       int64_t padding) {
  const int32_t* first = pointer<const int32_t>(index);
  std::vector<int32_t> rows(first, first + index.numel());
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  std::vector<int32_t> places;
  for (int64_t i = 0; i < index.numel(); ++i)
    places.push_back(
        static_cast<int32_t>(std::lower_bound(rows.begin(), rows.end(), first[i]) - rows.begin()));
  RowGradient gradient{int64_tensor({rows.begin(), rows.end()}),
                       at::zeros({static_cast<int64_t>(rows.size()), dy.size(1)}, table.options())};
  add_rows(dy, int32_tensor(places), gradient.values);
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] == padding) gradient.values.select(0, static_cast<int64_t>(i)).zero_();
  return as_sparse(gradient, table);
}

}  // namespace

Tensor embedding(const Tensors& tables, const Tensors& indices, at::ScalarType type,
                 int64_t padding) {
  ATTUNE_ASSERT(!tables.empty() && tables.size() <= 4 && tables.size() == indices.size());
  const at::ScalarType master = type == at::kDouble ? at::kDouble : at::kFloat;
  Tensors plain, read, places;
  std::vector<bool> needed, sparse;
  for (size_t i = 0; i < tables.size(); ++i) {
    check_indices(indices[i], tables[i].size(0), i);
    bring_rows(tables[i], indices[i]);
    plain.push_back(tables[i].detach().contiguous());
    needed.push_back(wants_gradient(tables[i]));
    // Only where autograd hands it to the table itself: not every operation takes sparse ones.
    sparse.push_back(tables[i].is_leaf() && tables[i].numel() >= kLargeTable &&
                     indices[i].numel() <= tables[i].size(0) / kFewRows);
    const Lookup rows = lookup(plain[i], indices[i], needed[i], master);
    read.push_back(rows.table);
    places.push_back(rows.index);
  }
  Tensor y = at::empty({indices[0].size(0), tables[0].size(1)},
                       tables[0].options().dtype(type).requires_grad(false));
  dispatch(y, [&](auto* tag) { gather<std::remove_pointer_t<decltype(tag)>>(read, places, y); });
  return record(y, tables, "embedding", [=](const Tensors& g) -> Tensors {
    const Tensor dy = dense_as(g[0], type);
    Tensors result(plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      if (!needed[i]) continue;
      result[i] = (sparse[i] ? sparse_gradient : dense_gradient)(dy, indices[i], plain[i],
                                                                 i == 0 ? padding : -1);
    }
    return result;
  });
}

Tensor pool(kernels::Pool kind, const Tensor& x_in, const RowIndex& rows) {
  const Tensor x = x_in.detach().contiguous();
  Tensor y = at::empty({rows.sequences(), x.size(1)}, x.options().dtype(master_of(dtype_of(x))));
  Tensor argmax =
      kind == kernels::Pool::Max ? at::empty(y.sizes(), x.options().dtype(at::kInt)) : Tensor();
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::pool_forward<T>(kind, pointer<T>(x), rows.data(), rows.sequences(), x.size(1),
                             pointer<kernels::acc_t<T>>(y), pointer<int32_t>(argmax));
  });
  return record(y, {x_in}, "pool", [=, master = y.scalar_type()](const Tensors& g) -> Tensors {
    const Tensor dy = dense_as(g[0], master);
    Tensor dx = at::empty_like(x);
    dispatch(x, [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      kernels::pool_backward<T>(kind, pointer<kernels::acc_t<T>>(dy), rows.data(), rows.sequences(),
                                x.size(1), pointer<int32_t>(argmax), pointer<T>(dx));
    });
    return {dx};
  });
}

CrossEntropy cross_entropy(const Tensor& logits_in, const Tensor& labels, const Tensor& weights,
                           double smoothing) {
  const Tensor logits = logits_in.detach().contiguous();
  Tensor gradient = wants_gradient(logits_in) ? at::empty_like(logits) : Tensor();
  CrossEntropy result;
  double sum = 0;
  dispatch(logits, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    sum = kernels::cross_entropy<T>(pointer<T>(logits), pointer<const int64_t>(labels),
                                    pointer<const T>(weights), smoothing, logits.size(0),
                                    logits.size(1), pointer<T>(gradient), &result.count);
  });
  result.sum = record(at::scalar_tensor(sum, at::kDouble), {logits_in}, "cross_entropy",
                      [gradient](const Tensors& g) -> Tensors {
                        const double factor = g[0].item<double>();
                        return {factor == 1.0 ? gradient : gradient * factor};
                      });
  return result;
}

}  // namespace attune
