#pragma once
#include <ATen/core/Tensor.h>

namespace attune {

/// Products of many small matrices, differentiable: result i is a_i b_i, or a_i b_i^T.
/// Shapes: a [n, m, k]; b [n, k, p] (as used), or [1, k, p] for one matrix shared by all; result
/// [n, m, p] in the type of `a`. Cost: n m k p multiply-adds, as many again for each gradient.
/// Errors: BadInput when the counts or inner sizes differ; the message names both shapes.
at::Tensor batched_matmul(const at::Tensor& a, const at::Tensor& b, bool transpose_b = false);

}  // namespace attune
