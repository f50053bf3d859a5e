#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/kernels.h"

namespace attune {

/// One low-rank side-car of a projection: y += scale * (dropout(x) down^T) up^T.
/// Shapes: down [rank, in], up [out, rank].
struct LowRankTerm {
  at::Tensor down, up;
  double scale = 1;
  double dropout = 0;
  uint32_t dropout_site = 0;
};

/// A term in the compute type, with what its backward needs.
struct SideCar {
  at::Tensor down, up;  // compute type: [rank, in], and scale up^T [rank, out]
  at::Tensor inner;     // dropout(x) down^T [rows, rank]
  at::Tensor row_keys;  // keeps the memory behind drop alive
  kernels::Dropout drop;
};

/// Adds the term of x [rows, in] to y [rows, out], both in the compute type; no gradients.
SideCar add_side_car(const at::Tensor& x, const LowRankTerm& term, const at::Tensor& row_keys,
                     const at::Tensor& y);

/// Appends the gradients of down and up (master type; undefined where none is wanted) and adds the
/// side-car's part to dx, when that is defined.
void side_car_backward(const SideCar& side, const LowRankTerm& term, const at::Tensor& x,
                       const at::Tensor& dy, const at::Tensor& dx, std::vector<at::Tensor>& result);

/// The side-car alone: scale * (dropout(x) down^T) up^T, differentiable.
at::Tensor low_rank(const at::Tensor& x, const LowRankTerm& term, const at::Tensor& row_keys);

}  // namespace attune
