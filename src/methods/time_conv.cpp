#include "methods/time_conv.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

using at::Tensor;

namespace {

int64_t rows_before(int64_t kernel, bool causal) {
  return causal ? kernel - 1 : (kernel - 1) / 2;
}

/// Calls f(row, other, tap) for every pair of rows of one sequence that a tap joins.
template <class F>
void each_tap(const RowIndex& rows, int64_t sequence, int64_t kernel, int64_t before, const F& f) {
  const int64_t begin = rows.begin(sequence), end = rows.end(sequence);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = std::max(begin, row - before),
                  last = std::min(end, row - before + kernel);
    for (int64_t other = first; other < last; ++other) f(row, other, other - row + before);
  }
}

/// weight [k, c], so that the features of a row are consecutive.
template <class T>
void forward_rows(const RowIndex& rows, int64_t before, const Tensor& x, const Tensor& weight,
                  const Tensor& y) {
  const int64_t kernel = weight.size(0), width = weight.size(1);
  const T *in = pointer<T>(x), *w = pointer<T>(weight);
  T* out = pointer<T>(y);
  at::parallel_for(0, rows.sequences(), 1, [&](int64_t from, int64_t to) {
    for (int64_t b = from; b < to; ++b)
      each_tap(rows, b, kernel, before, [&](int64_t row, int64_t other, int64_t tap) {
        for (int64_t c = 0; c < width; ++c)
          out[row * width + c] += w[tap * width + c] * in[other * width + c];
      });
  });
}

template <class T>
void input_gradient(const RowIndex& rows, int64_t before, const Tensor& dy, const Tensor& weight,
                    const Tensor& dx) {
  const int64_t kernel = weight.size(0), width = weight.size(1);
  const T *g = pointer<T>(dy), *w = pointer<T>(weight);
  T* out = pointer<T>(dx);
  at::parallel_for(0, rows.sequences(), 1, [&](int64_t from, int64_t to) {
    for (int64_t b = from; b < to; ++b)
      each_tap(rows, b, kernel, before, [&](int64_t row, int64_t other, int64_t tap) {
        for (int64_t c = 0; c < width; ++c)
          out[other * width + c] += w[tap * width + c] * g[row * width + c];
      });
  });
}

/// Summed by one thread, in the order of the rows: the same for every thread count.
template <class T>
void weight_gradient(const RowIndex& rows, int64_t before, const Tensor& x, const Tensor& dy,
                     const Tensor& dweight) {
  const int64_t kernel = dweight.size(0), width = dweight.size(1);
  const T *in = pointer<T>(x), *g = pointer<T>(dy);
  T* out = pointer<T>(dweight);
  for (int64_t b = 0; b < rows.sequences(); ++b)
    each_tap(rows, b, kernel, before, [&](int64_t row, int64_t other, int64_t tap) {
      for (int64_t c = 0; c < width; ++c)
        out[tap * width + c] += g[row * width + c] * in[other * width + c];
    });
}

void check_shapes(const Tensor& x, const Tensor& weight, const Tensor& bias, const RowIndex& rows) {
  const bool fits = x.dim() == 2 && weight.dim() == 2 && weight.size(0) == x.size(1) &&
                    bias.numel() == x.size(1) && rows.rows() == x.size(0) &&
                    weight.scalar_type() == x.scalar_type();
  if (!fits)
    fail(ErrorCode::BadInput,
         "a convolution over {} rows of x {} with kernels {} and bias {}: the sizes or types "
         "differ; expected [rows, c], [c, k] and [c] of one type",
         rows.rows(), x.sizes().vec(), weight.sizes().vec(), bias.sizes().vec());
}

}  // namespace

Tensor depthwise_conv(const Tensor& x_in, const Tensor& weight_in, const Tensor& bias,
                      const RowIndex& rows, bool causal) {
  check_shapes(x_in, weight_in, bias, rows);
  const Tensor x = x_in.detach().contiguous(), weight = weight_in.detach().t().contiguous();
  const int64_t before = rows_before(weight.size(0), causal);
  const Tensor y = bias.detach().reshape({1, -1}).repeat({x.size(0), 1});
  dispatch_master(x, [&](auto* tag) {
    forward_rows<std::remove_pointer_t<decltype(tag)>>(rows, before, x, weight, y);
  });
  const bool need_x = wants_gradient(x_in), need_weight = wants_gradient(weight_in),
             need_bias = wants_gradient(bias);
  return record(y, {x_in, weight_in, bias}, "depthwise_conv", [=](const Tensors& g) -> Tensors {
    const Tensor dy = dense_as(g[0], x.scalar_type());
    const Tensor dx = need_x ? at::zeros_like(x) : Tensor(),
                 dweight = need_weight ? at::zeros_like(weight) : Tensor();
    dispatch_master(x, [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      if (need_x) input_gradient<T>(rows, before, dy, weight, dx);
      if (need_weight) weight_gradient<T>(rows, before, x, dy, dweight);
    });
    return {dx, need_weight ? dweight.t() : Tensor(), need_bias ? dy.sum(0) : Tensor()};
  });
}

Tensor windows(const Tensor& x, int64_t kernel, const RowIndex& rows, bool causal) {
  const int64_t before = rows_before(kernel, causal), count = x.size(0);
  std::vector<int64_t> index(static_cast<size_t>(count * kernel), count);  // count: a row of zeros
  for (int64_t b = 0; b < rows.sequences(); ++b)
    each_tap(rows, b, kernel, before, [&](int64_t row, int64_t other, int64_t tap) {
      index[static_cast<size_t>(row * kernel + tap)] = other;
    });
  const Tensor padded = at::cat({x, at::zeros({1, x.size(1)}, x.options())});
  return padded.index_select(0, int64_tensor(index)).reshape({count, kernel * x.size(1)});
}

}  // namespace attune
