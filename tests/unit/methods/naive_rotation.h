#pragma once
// Skew-symmetric generators and Cayley transforms by plain loops.
#include <cmath>
#include <utility>
#include <vector>

#include "method_bench.h"

namespace attune {

inline Tensor identity(int64_t n) {
  return at::eye(n, at::kDouble);
}

/// Q[i][j] = u, Q[j][i] = -u for the pairs i < j in row order.
inline Tensor naive_skew(const Tensor& upper, int64_t b) {
  Tensor q = at::zeros({b, b}, at::kDouble);
  int64_t at = 0;
  for (int64_t i = 0; i < b; ++i)
    for (int64_t j = i + 1; j < b; ++j, ++at) {
      q.index({i, j}).fill_(at1(upper, at));
      q.index({j, i}).fill_(-at1(upper, at));
    }
  return q;
}

/// Inverse by Gauss-Jordan elimination with row exchanges.
inline Tensor naive_inverse(const Tensor& matrix) {
  const int64_t n = matrix.size(0);
  std::vector<std::vector<double>> a(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < 2 * n; ++j)
      a[static_cast<size_t>(i)].push_back(j < n ? at2(matrix, i, j) : (j - n == i ? 1.0 : 0.0));
  for (size_t c = 0; c < a.size(); ++c) {
    size_t best = c;
    for (size_t r = c; r < a.size(); ++r)
      if (std::abs(a[r][c]) > std::abs(a[best][c])) best = r;
    std::swap(a[c], a[best]);
    const double pivot = a[c][c];
    for (double& x : a[c]) x /= pivot;
    for (size_t r = 0; r < a.size(); ++r) {
      if (r == c) continue;
      const double factor = a[r][c];
      for (size_t j = 0; j < a[r].size(); ++j) a[r][j] -= factor * a[c][j];
    }
  }
  Tensor result = at::zeros({n, n}, at::kDouble);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      result.index({i, j}).fill_(a[static_cast<size_t>(i)][static_cast<size_t>(n + j)]);
  return result;
}

inline Tensor naive_cayley(const Tensor& q) {
  const Tensor one = identity(q.size(0));
  return naive_product(one - q, naive_inverse(one + q));
}

}  // namespace attune
