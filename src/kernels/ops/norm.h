#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/kernels.h"

namespace attune {

/// Dropout of one site in one pass; keys int64 [rows], undefined: off.
struct DropSite {
  double p = 0;
  at::Tensor row_keys;
  uint32_t site = 0;
  kernels::Dropout kernel() const;
};

struct NormArgs {
  kernels::NormKind kind = kernels::NormKind::Layer;
  at::Tensor gamma, beta;  // master type [cols]; beta may be undefined
  double eps = 1e-12;
};

struct NormResult {
  at::Tensor y;    // norm(sum) * gamma + beta
  at::Tensor sum;  // dropout(x) + residual, when asked for
};

/// One node: sum = dropout(x) + residual; y = norm(sum). x, residual [rows, cols] in the compute
/// type; residual may be undefined. keep_sum: also return the sum (the stream of pre-norm blocks).
/// Gradients of gamma and beta in the master type. References: Ba et al. 2016, arXiv 1607.06450;
/// Zhang and Sennrich 2019, arXiv 1910.07467 (RMS).
NormResult add_norm(const at::Tensor& x, const at::Tensor& residual, const DropSite& drop,
                    const NormArgs& args, bool keep_sum);

}  // namespace attune
