#pragma once
#include <ATen/core/Tensor.h>

#include "tensor/rows.h"

namespace attune {

/// Convolution over the rows of each sequence, every feature with a kernel of its own:
/// y[t, c] = bias[c] + sum_j weight[c, j] x[t + j - before, c]; rows outside the sequence count as
/// zero. `before` is (k - 1) / 2, or k - 1 when causal, so that no row sees a later one.
/// Shapes: x [rows, c], weight [c, k], bias [c], all of one type (float or double); result [rows,
/// c]. Cost: rows c k multiply-adds forward, twice that backward. Errors: BadInput when sizes
/// differ; the message names the shapes.
at::Tensor depthwise_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const RowIndex& rows, bool causal);

/// The rows of each sequence side by side with their neighbours: [rows, k c], the j-th group of c
/// columns being x[t + j - before], zero outside the sequence. x [rows, c].
at::Tensor windows(const at::Tensor& x, int64_t kernel, const RowIndex& rows, bool causal);

}  // namespace attune
