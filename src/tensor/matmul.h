#pragma once
#include <ATen/core/Tensor.h>

namespace attune {

/// Product of two matrices, differentiable: a [m, k] (as used), b [k, n] (as used); result [m, n]
/// in the common type; or of each of a batch by that of another, all with one more dimension in
/// front. `transpose_a`, `transpose_b`: use the transpose of the stored matrix. Runs on oneDNN
/// (float, bf16) or the double-precision reference. Mixed types are converted to the type of `a`.
/// Errors: BadInput when the inner sizes differ; the message names both shapes.
at::Tensor matmul(const at::Tensor& a, const at::Tensor& b, bool transpose_a = false,
                  bool transpose_b = false);

/// The same without gradients, into a new tensor of type `out`.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, bool transpose_a, bool transpose_b,
                   at::ScalarType out);
/// a^T b of [rows, m] and [rows, n] into a new tensor of type `out`; where that needs b no longer
/// once it has begun, and nobody else holds b, its memory may be the result's.
at::Tensor product_of_rows(const at::Tensor& a, at::Tensor b, at::ScalarType out);
/// c += a b, all dense and of one type; without gradients.
void add_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c);

}  // namespace attune
