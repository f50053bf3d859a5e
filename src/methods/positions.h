#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attune {

/// Positions of a matrix's entries, for the methods that train a few of them.

/// `count` distinct numbers below `total`, ascending, every subset equally likely: int64 [count].
/// Cost: count draws, whatever the total. Needs count <= total.
/// Reference: Bentley and Floyd 1987, "Programming pearls: a sample of brilliance".
at::Tensor sample_positions(uint64_t key, int64_t count, int64_t total);
/// Places of the `count` entries of largest magnitude in the flattened matrix, ascending.
at::Tensor largest_positions(const at::Tensor& matrix, int64_t count);
/// Rows and columns int32 [2, n] of places in a flattened matrix of `columns` columns.
at::Tensor rows_and_columns(const at::Tensor& places, int64_t columns);
/// weight + scale * the sparse matrix with `values` [n] at `positions` [2, n]; differentiable.
at::Tensor add_at(const at::Tensor& weight, const at::Tensor& positions, const at::Tensor& values,
                  double scale = 1);

}  // namespace attune
