#include "tensor/matmul.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "kernels/gemm_turned.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {
kernels::Matrix view(const at::Tensor& x, bool transposed = false) {
  return {x.data_ptr(), dtype_of(x), x.size(-2), x.size(-1), transposed};
}
kernels::MutableMatrix result(const at::Tensor& c) {
  return {c.data_ptr(), dtype_of(c), c.size(-2), c.size(-1)};
}
/// Batches of as many matrices, or one each.
bool fit(const at::Tensor& a, const at::Tensor& b) {
  return a.dim() == b.dim() && (a.dim() == 2 || (a.dim() == 3 && a.size(0) == b.size(0)));
}
}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, bool transpose_a, bool transpose_b,
                   at::ScalarType out) {
  const Tensor left = dense_as(a, a.scalar_type());
  const Tensor right = dense_as(b, a.scalar_type());
  const kernels::Matrix l = view(left, transpose_a), r = view(right, transpose_b);
  if (!fit(left, right) || l.used_cols() != r.used_rows())
    fail(ErrorCode::BadInput, "multiplying matrices {}{} and {}{}: the inner sizes differ",
         a.sizes().vec(), transpose_a ? "^T" : "", b.sizes().vec(), transpose_b ? "^T" : "");
  std::vector<int64_t> shape = left.sizes().vec();
  shape.end()[-2] = l.used_rows();
  shape.end()[-1] = r.used_cols();
  Tensor c = at::empty(shape, left.options().dtype(out));
  if (c.dim() == 3)
    kernels::gemm_batch(c.size(0), l, r, result(c));
  else
    kernels::gemm(l, r, result(c), nullptr, false);
  return c;
}

at::Tensor product_of_rows(const at::Tensor& a, at::Tensor b, at::ScalarType out) {
  if (out != at::kFloat || !a.is_contiguous() || !b.is_contiguous() || a.size(0) != b.size(0))
    return product(a, b, true, false, out);
  const std::unique_ptr<kernels::TurnedProduct> begun =
      kernels::TurnedProduct::begin(view(a, true), view(b), false);
  if (begun == nullptr) return product(a, b, true, false, out);
  const int64_t cols = b.size(1);
  b = Tensor();
  const Tensor c = at::empty({a.size(1), cols}, a.options().dtype(out));
  begun->into(result(c));
  return c;
}

void add_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  kernels::gemm(view(a, false), view(b, false), result(c), nullptr, true);
}

at::Tensor matmul(const at::Tensor& a, const at::Tensor& b, bool transpose_a, bool transpose_b) {
  const Tensor left = a.detach(), right = b.detach();
  return record(
      product(left, right, transpose_a, transpose_b, a.scalar_type()), {a, b}, "matmul",
      [=, need_a = wants_gradient(a), need_b = wants_gradient(b)](const Tensors& g) -> Tensors {
        const Tensor dy = dense_as(g[0], left.scalar_type());
        Tensor da, db;
        if (need_a)
          da = transpose_a ? product(right, dy, transpose_b, true, left.scalar_type())
                           : product(dy, right, false, !transpose_b, left.scalar_type());
        if (need_b)
          db = transpose_b ? product(dy, left, true, transpose_a, right.scalar_type())
                           : product(left, dy, !transpose_a, false, right.scalar_type());
        return {da, db};
      });
}

}  // namespace attune
