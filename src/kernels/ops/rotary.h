#pragma once
#include <ATen/core/Tensor.h>

namespace attune {

/// Angles of rotary positions as the rows of one stream have them.
struct RotaryTable {
  at::Tensor cosines, sines;  // master type [rows, dims / 2]
  bool interleaved = false;   // pairs (2 j, 2 j + 1) in place of (j, j + dims / 2)
  /// The angles of these rows (int64).
  RotaryTable of(const at::Tensor& rows) const;
};

/// Turns every head of x [rows, heads * head_size] by its row's angles; elements past the table's
/// dims stay. Differentiable in x.
/// Reference: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding",
/// arXiv 2104.09864, equation 34.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table, int64_t heads, int64_t head_size);

}  // namespace attune
