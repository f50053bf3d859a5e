#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attune {

/// Orthogonal matrices from their skew-symmetric generators, for the methods that rotate inputs.

/// Q = U - U^T, U strictly upper triangular with the entries of `upper` row by row.
/// Shapes: upper [*, b (b - 1) / 2]; result [n, b, b], n the product of the leading sizes.
at::Tensor skew_symmetric(const at::Tensor& upper, int64_t block);

/// The Cayley transform R = (I - Q) (I + Q)^-1 of every Q [n, b, b]: orthogonal, no eigenvalue -1.
/// Reference: Cayley 1846; Qiu et al. 2023, arXiv 2306.07280, section 3.3.
at::Tensor cayley(const at::Tensor& skew);

/// W R^T where R is block-diagonal: every group of b input columns turns by its own matrix.
/// Shapes: weight [out, n b]; rotation [n, b, b], or [1, b, b] for one that all groups share.
at::Tensor rotate_inputs(const at::Tensor& weight, const at::Tensor& rotation);

}  // namespace attune
