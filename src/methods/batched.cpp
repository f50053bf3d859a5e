#include "methods/batched.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// Matrix by matrix through `product`; a, b dense.
Tensor each(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  const int64_t rows = transpose_a ? a.size(2) : a.size(1);
  const int64_t cols = transpose_b ? b.size(1) : b.size(2);
  Tensor result = at::empty({a.size(0), rows, cols}, a.options());
  for (int64_t i = 0; i < a.size(0); ++i)
    result.select(0, i).copy_(
        product(a.select(0, i), b.select(0, i), transpose_a, transpose_b, a.scalar_type()));
  return result;
}

Tensor many(const Tensor& a, const Tensor& b, bool transpose_b) {
  const Tensor left = dense_as(a.detach(), a.scalar_type());
  const Tensor right = dense_as(b.detach(), a.scalar_type());
  return record(each(left, right, false, transpose_b), {a, b}, "batched_matmul",
                [=, need_a = wants_gradient(a), need_b = wants_gradient(b)](const Tensors& g) {
                  const Tensor dy = dense_as(g[0], left.scalar_type());
                  Tensor da, db;
                  if (need_a) da = each(dy, right, false, !transpose_b);
                  if (need_b)
                    db = transpose_b ? each(dy, left, true, false) : each(left, dy, true, false);
                  return Tensors{da, db};
                });
}

}  // namespace

Tensor batched_matmul(const Tensor& a, const Tensor& b, bool transpose_b) {
  const int64_t inner = transpose_b ? b.size(2) : b.size(1);
  if ((b.size(0) != a.size(0) && b.size(0) != 1) || a.size(2) != inner)
    fail(ErrorCode::BadInput,
         "multiplying matrices {} and {}{} one by one: the counts or inner sizes differ",
         a.sizes().vec(), b.sizes().vec(), transpose_b ? "^T" : "");
  if (b.size(0) == a.size(0)) return many(a, b, transpose_b);
  const Tensor rows = a.reshape({a.size(0) * a.size(1), a.size(2)});
  return attune::matmul(rows, b.select(0, 0), false, transpose_b)
      .reshape({a.size(0), a.size(1), -1});
}

}  // namespace attune
