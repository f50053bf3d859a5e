#include "methods/decomposition.h"

#include <algorithm>
#include <tuple>

#include "core/attachment.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {

using at::Tensor;

namespace {

Tensor times(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  return product(a, b, transpose_a, transpose_b, a.scalar_type());
}

Tensor orthonormal(const Tensor& x) {
  return std::get<0>(at::linalg_qr(x, "reduced"));
}

}  // namespace

LowRankSparse greedy_bilateral(const Tensor& w, int64_t rounds, double threshold, int64_t grow,
                               uint64_t key) {
  at::NoGradGuard no_grad;
  LowRankSparse parts;
  parts.v = normal_tensor(key, {1, w.size(1)}, 1, w.scalar_type());
  for (int64_t round = 0; round < rounds; ++round) {
    parts.s = at::zeros_like(w);
    Tensor rest;
    for (int sweep = 0; sweep < 2; ++sweep) {
      const Tensor dense = w - parts.s;
      parts.u = orthonormal(times(dense, parts.v, false, true));
      parts.v = times(parts.u, dense, true, false);
      rest = w - times(parts.u, parts.v, false, false);
      parts.s = rest * rest.abs().ge(threshold);
    }
    if (round + 1 == rounds) break;
    // The first rows of the triangular factor need the orthonormal basis of the first columns only.
    const Tensor left = rest - parts.s;
    const Tensor first = left.slice(1, 0, std::min(grow, w.size(1))).contiguous();
    parts.v = at::cat({parts.v, times(orthonormal(first), left, true, false)});
  }
  return parts;
}

}  // namespace attune
