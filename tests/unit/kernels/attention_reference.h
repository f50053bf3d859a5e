#pragma once
// Attention computed plainly in double, and the kernels' results beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel_test_util.h"

namespace attune::kernels {
namespace attention_test {
using namespace test;

/// One problem with its inputs in double, and the plain computation.
struct Problem {
  std::vector<int32_t> q_offsets, k_offsets;
  int64_t heads, kv_heads, d;
  bool causal = false;
  int64_t window = 0;
  Dropout drop;
  int64_t reach = 0;  // > 0: with a bias table
  double scale = 0.3;
  std::vector<double> q, k, v, table;
  std::vector<int32_t> positions;  // of the query rows; empty: counted
  int64_t heads_in_rows = 1;       // of what runs, not of the plain computation

  int64_t q_rows() const { return q_offsets.back(); }
  int64_t k_rows() const { return k_offsets.back(); }
  int64_t shift(int64_t b) const {
    return (k_offsets[b + 1] - k_offsets[b]) - (q_offsets[b + 1] - q_offsets[b]);
  }
  /// Position of key j minus that of query i: counted, or by the rows' own positions, before which
  /// the first keys count back.
  int64_t distance(int64_t b, int64_t i, int64_t j) const {
    if (positions.empty()) return j - i - shift(b);
    const int32_t* own = positions.data() + q_offsets[b];
    return (j >= shift(b) ? own[j - shift(b)] : own[0] - (shift(b) - j)) - own[i];
  }
  bool sees(int64_t b, int64_t i, int64_t j) const {
    const int64_t at = i + shift(b);
    return (!causal || j <= at) && (window == 0 || std::abs(at - j) < window);
  }
  double bias(int64_t b, int64_t head, int64_t i, int64_t j) const {
    if (reach == 0) return 0;
    return table[head * (2 * reach + 1) + std::clamp(distance(b, i, j), -reach, reach) + reach];
  }
  /// out [q_rows, heads * d]; lse [q_rows, heads].
  void forward(std::vector<double>& out, std::vector<double>& lse) const {
    out.assign(q_rows() * heads * d, 0);
    lse.assign(q_rows() * heads, 0);
    for (size_t b = 0; b + 1 < q_offsets.size(); ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < q_offsets[b + 1] - q_offsets[b]; ++i)
          row(static_cast<int64_t>(b), h, i, out, lse);
  }
  void row(int64_t b, int64_t h, int64_t i, std::vector<double>& out,
           std::vector<double>& lse) const {
    const int64_t keys = k_offsets[b + 1] - k_offsets[b], row = q_offsets[b] + i,
                  kv = h / (heads / kv_heads);
    std::vector<double> p(keys);
    double sum = 0;
    for (int64_t j = 0; j < keys; ++j) {
      double score = 0;
      for (int64_t c = 0; c < d; ++c)
        score += q[(row * heads + h) * d + c] * k[((k_offsets[b] + j) * kv_heads + kv) * d + c];
      p[j] = sees(b, i, j) ? std::exp(score * scale + bias(b, h, i, j)) : 0;
      sum += p[j];
    }
    lse[row * heads + h] = std::log(sum);
    for (int64_t j = 0; j < keys && sum > 0; ++j) {
      const double weight = p[j] / sum * drop_factor(drop, row, j, static_cast<uint32_t>(h + 1));
      for (int64_t c = 0; c < d; ++c)
        out[(row * heads + h) * d + c] += weight * v[((k_offsets[b] + j) * kv_heads + kv) * d + c];
    }
  }
};

template <class T>
struct Executed {
  std::vector<T> q, k, v, out, dq, dk, dv;
  std::vector<acc_t<T>> table, table_gradient, log_sums;
  AttentionShape shape;

  /// Rows of q, k, v carry `gap` extra elements, so strides exceed the widths. kept: the backward
  /// pass gets the forward one's output. one: the values are the keys, dk gets both gradients.
  Executed(const Problem& p, const std::vector<T>& dout, bool kept = true, int64_t gap = 3,
           bool one = false) {
    const auto spread = [&](const std::vector<double>& x, int64_t width) {
      std::vector<T> to(x.size() / width * (width + gap) + 1, to_type<T>(NAN));
      for (size_t i = 0; i < x.size(); ++i)
        to[1 + i / width * (width + gap) + i % width] = to_type<T>(x[i]);
      return to;
    };
    q = spread(p.q, p.heads * p.d), k = spread(p.k, p.kv_heads * p.d),
    v = spread(p.v, p.kv_heads * p.d);
    for (const double x : p.table) table.push_back(static_cast<acc_t<T>>(x));
    table_gradient.assign(table.size(), 0);
    shape.sequences = static_cast<int64_t>(p.q_offsets.size()) - 1;
    shape.q_offsets = p.q_offsets.data(), shape.k_offsets = p.k_offsets.data();
    shape.heads = p.heads, shape.kv_heads = p.kv_heads, shape.head_size = p.d;
    shape.q_stride = p.heads * p.d + gap, shape.k_stride = shape.v_stride = p.kv_heads * p.d + gap;
    shape.scale = p.scale, shape.causal = p.causal, shape.window = p.window, shape.drop = p.drop;
    shape.heads_in_rows = p.heads_in_rows;
    shape.positions = p.positions.empty() ? nullptr : p.positions.data();
    out.resize(p.q_rows() * p.heads * p.d), dq.resize(out.size());
    dk.resize(p.k_rows() * p.kv_heads * p.d), dv.resize(dk.size()),
        log_sums.resize(p.q_rows() * p.heads);
    AttentionBias<T> bias;
    if (p.reach > 0) bias = {table.data(), table_gradient.data(), p.reach};
    const std::vector<T>& values = one ? k : v;
    attention_forward<T>(shape, bias, q.data() + 1, k.data() + 1, values.data() + 1, out.data(),
                         log_sums.data());
    if (!dout.empty())
      attention_backward<T>(shape, bias, q.data() + 1, k.data() + 1, values.data() + 1,
                            kept ? out.data() : nullptr, log_sums.data(), dout.data(), dq.data(),
                            dk.data(), one ? dk.data() : dv.data());
  }
};

template <class T>
Problem problem(std::vector<int32_t> q_offsets, std::vector<int32_t> k_offsets, int64_t heads,
                int64_t kv_heads, int64_t d) {
  Problem p{std::move(q_offsets),
            std::move(k_offsets),
            heads,
            kv_heads,
            d,
            false,
            0,
            {},
            0,
            0.3,
            {},
            {},
            {},
            {},
            {}};
  p.q = doubles(randoms<T>(1, p.q_rows() * heads * d));
  p.k = doubles(randoms<T>(2, p.k_rows() * kv_heads * d));
  p.v = doubles(randoms<T>(3, p.k_rows() * kv_heads * d));
  return p;
}

/// Gradients of sum(dout * out) in double, by the chain rule of softmax written out per pair.
struct Gradients {
  std::vector<double> q, k, v, table;
};
inline Gradients backward(const Problem& p, const std::vector<double>& dout) {
  std::vector<double> out, lse;
  p.forward(out, lse);
  Gradients g{std::vector<double>(p.q.size()), std::vector<double>(p.k.size()),
              std::vector<double>(p.v.size()), std::vector<double>(p.table.size())};
  for (size_t b = 0; b + 1 < p.q_offsets.size(); ++b)
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t i = 0; i < p.q_offsets[b + 1] - p.q_offsets[b]; ++i) {
        const int64_t row = p.q_offsets[b] + i, kv = h / (p.heads / p.kv_heads),
                      at = (row * p.heads + h) * p.d;
        double term = 0;
        for (int64_t c = 0; c < p.d; ++c) term += dout[at + c] * out[at + c];
        for (int64_t j = 0; j < p.k_offsets[b + 1] - p.k_offsets[b]; ++j) {
          if (!p.sees(static_cast<int64_t>(b), i, j)) continue;
          const int64_t key = ((p.k_offsets[b] + j) * p.kv_heads + kv) * p.d;
          double score = 0, dp = 0;
          for (int64_t c = 0; c < p.d; ++c)
            score += p.q[at + c] * p.k[key + c], dp += dout[at + c] * p.v[key + c];
          const double weight = std::exp(
              score * p.scale + p.bias(static_cast<int64_t>(b), h, i, j) - lse[row * p.heads + h]);
          const double factor = drop_factor(p.drop, row, j, static_cast<uint32_t>(h + 1));
          const double ds = weight * (dp * factor - term);
          for (int64_t c = 0; c < p.d; ++c) {
            g.q[at + c] += ds * p.scale * p.k[key + c];
            g.k[key + c] += ds * p.scale * p.q[at + c];
            g.v[key + c] += weight * factor * dout[at + c];
          }
          if (p.reach > 0)
            g.table[h * (2 * p.reach + 1) +
                    std::clamp(p.distance(static_cast<int64_t>(b), i, j), -p.reach, p.reach) +
                    p.reach] += ds;
        }
      }
  return g;
}

inline double largest(const std::vector<double>& x) {
  double top = 1e-3;
  for (const double value : x) top = std::max(top, std::abs(value));
  return top;
}

/// Largest difference relative to the largest expected value.
template <class T>
double distance(const std::vector<T>& found, const std::vector<double>& expected) {
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = std::abs(value_of(found[i]) - expected[i]);
    worst = std::max(worst, d == d ? d : INFINITY);
  }
  return worst / largest(expected);
}

template <class T>
void check_gradients(const Problem& p, const Executed<T>& run, const Gradients& g, double allowed) {
  EXPECT_LT(distance(run.dq, g.q), allowed) << "dq";
  EXPECT_LT(distance(run.dk, g.k), allowed) << "dk";
  EXPECT_LT(distance(run.dv, g.v), allowed) << "dv";
  if (p.reach > 0) {
    EXPECT_LT(distance(run.table_gradient, g.table), allowed) << "table";
  }
}

/// What a result may differ by, relative to the largest value.
template <class T>
constexpr double kAllowed = sizeof(T) == 8   ? 1e-12
                            : sizeof(T) == 4 ? 4e-6
                                             : 1.5e-2;

}  // namespace attention_test
}  // namespace attune::kernels
