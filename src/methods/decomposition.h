#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace attune {

/// w = u v + s + a rest whose entries are all smaller than the threshold.
struct LowRankSparse {
  at::Tensor u, v, s;  // [out, k], [k, in], [out, in]
};

/// Greedy bilateral decomposition of a matrix [out, in] into low rank and sparse parts. A round is,
/// from s = 0 on, two sweeps of u = orth((w - s) v^T), v = u^T (w - s), s = the entries of w - u v
/// of at least `threshold`; after it v gains `grow` rows, the first ones of the triangular factor
/// of what is left. v starts as one random row drawn from `key`, so the rank is 1 + grow * (rounds
/// - 1). Without gradients. Cost: about 12 out in k multiply-adds a round. Reference: Zhou and Tao
/// 2013, "Greedy Bilateral Sketch, Completion & Smoothing"; Chen et al. 2023, "DSEE", arXiv
/// 2111.00160, section 3.2.
LowRankSparse greedy_bilateral(const at::Tensor& w, int64_t rounds, double threshold, int64_t grow,
                               uint64_t key);

}  // namespace attune
