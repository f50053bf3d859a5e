#include <gtest/gtest.h>

#include <algorithm>

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
  std::vector<acc_t<T>> table, table_gradient, lse;
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
        lse.resize(p.q_rows() * p.heads);
    AttentionBias<T> bias;
    if (p.reach > 0) bias = {table.data(), table_gradient.data(), p.reach};
    const std::vector<T>& values = one ? k : v;
    attention_forward<T>(shape, bias, q.data() + 1, k.data() + 1, values.data() + 1, out.data(),
                         lse.data());
    if (!dout.empty())
      attention_backward<T>(shape, bias, q.data() + 1, k.data() + 1, values.data() + 1,
                            kept ? out.data() : nullptr, lse.data(), dout.data(), dq.data(),
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
Gradients backward(const Problem& p, const std::vector<double>& dout) {
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

double largest(const std::vector<double>& x) {
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

template <class T>
void check(const Problem& p) {
  const double allowed = sizeof(T) == 8 ? 1e-12 : sizeof(T) == 4 ? 3e-6 : 1.5e-2;
  std::vector<double> out, lse;
  p.forward(out, lse);
  const std::vector<T> dout = randoms<T>(4, static_cast<int64_t>(out.size()));
  const Gradients g = backward(p, doubles(dout));
  for_each_isa([&](const char* set) {
    SCOPED_TRACE(set);
    const Executed<T> run(p, dout);
    EXPECT_LT(distance(run.out, out), allowed);
    for (size_t i = 0; i < lse.size(); ++i) {
      if (std::isinf(lse[i])) {
        EXPECT_EQ(run.lse[i], lse[i]);
      } else {
        ASSERT_NEAR(run.lse[i], lse[i], allowed * (1 + std::abs(lse[i])));
      }
    }
    check_gradients(p, run, g, allowed);
    for (size_t b = 0; b + 1 < p.k_offsets.size(); ++b)
      if (p.k_offsets[b + 1] - p.k_offsets[b] > kKeyChunk) return;
    SCOPED_TRACE("output not kept");
    check_gradients(p, Executed<T>(p, dout, false), g, allowed);
  });
}

template <class T>
class Attention : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(Attention, Types);

const std::vector<int32_t> kRagged{0, 1, 17, 17, 50, 121, 124};  // lengths 1, 16, 0, 33, 71, 3

TYPED_TEST(Attention, MatchesThePlainComputationForHeadSizes) {
  for (const int64_t d : {1, 5, 16, 32, 33, 64, 80}) {
    SCOPED_TRACE(d);
    check<TypeParam>(problem<TypeParam>(kRagged, kRagged, 2, 2, d));
  }
}

TYPED_TEST(Attention, MatchesWithMasksWindowsAndSharedKeyHeads) {
  for (int bits = 0; bits < 8; ++bits) {
    SCOPED_TRACE(bits);
    Problem p = problem<TypeParam>(kRagged, kRagged, 4, (bits & 1) != 0 ? 2 : 4, 24);
    p.causal = (bits & 2) != 0;
    p.window = (bits & 4) != 0 ? 20 : 0;
    check<TypeParam>(p);
  }
}

TYPED_TEST(Attention, MatchesWithDropoutAndBias) {
  const std::vector<uint64_t> keys = row_keys(200);
  for (int bits = 1; bits < 8; ++bits) {
    SCOPED_TRACE(bits);
    Problem p = problem<TypeParam>(kRagged, kRagged, 2, 1, 32);
    if ((bits & 1) != 0) p.drop = {0.25f, keys.data(), 4};
    if ((bits & 2) != 0) p.reach = 9, p.table = doubles(randoms<float>(8, 2 * 19));
    p.causal = (bits & 4) != 0;
    check<TypeParam>(p);
  }
}

TYPED_TEST(Attention, CrossLengthsAndEmptySidesWork) {
  const std::vector<uint64_t> row = row_keys(200);
  const std::vector<int32_t> queries{0, 4, 9, 9, 80}, keys{0, 20, 20, 30, 130};
  for (int bits = 0; bits < 8; ++bits) {
    SCOPED_TRACE(bits);
    Problem p = problem<TypeParam>(queries, keys, 2, 2, 16);
    p.causal = (bits & 1) != 0;
    if ((bits & 2) != 0) p.drop = {0.1f, row.data(), 4};
    if ((bits & 4) != 0) p.window = 7;
    check<TypeParam>(p);
    Problem turned =
        problem<TypeParam>(keys, queries, 2, 2, 16);  // fewer keys than queries: some rows see none
    turned.causal = (bits & 1) != 0;
    if ((bits & 4) != 0) turned.reach = 3, turned.table = doubles(randoms<float>(8, 2 * 7));
    check<TypeParam>(turned);
  }
}

TYPED_TEST(Attention, KeysThatAreTheValuesGetOneGradient) {
  const std::vector<int32_t> queries{0, 4, 9, 9, 80}, keys{0, 20, 20, 30, 630};
  for (const int64_t d : {16, 33, 200}) {
    SCOPED_TRACE(d);
    Problem p = problem<TypeParam>(queries, keys, 2, 1, d);
    p.scale = 0.05;
    p.v = p.k;
    const double allowed = sizeof(TypeParam) == 8 ? 1e-12 : sizeof(TypeParam) == 4 ? 3e-6 : 1.5e-2;
    std::vector<double> out, lse;
    p.forward(out, lse);
    const std::vector<TypeParam> dout = randoms<TypeParam>(4, static_cast<int64_t>(out.size()));
    Gradients g = backward(p, doubles(dout));
    for (size_t i = 0; i < g.k.size(); ++i) g.k[i] += g.v[i];
    for_each_isa([&](const char* set) {
      SCOPED_TRACE(set);
      const Executed<TypeParam> run(p, dout, true, 3, /*one=*/true);
      EXPECT_LT(distance(run.out, out), allowed);
      EXPECT_LT(distance(run.dq, g.q), allowed);
      EXPECT_LT(distance(run.dk, g.k), allowed);
    });
  }
}

TYPED_TEST(Attention, HeadsInRowsAreHeads) {
  const int64_t heads = 3, d = 16, queries = 5;
  const std::vector<uint64_t> row = row_keys(queries);
  Problem p = problem<TypeParam>({0, 2, 5}, {0, 40, 700}, heads, 1, d);
  p.drop = {0.25f, row.data(), 4};
  const double allowed = sizeof(TypeParam) == 8 ? 1e-12 : sizeof(TypeParam) == 4 ? 3e-6 : 1.5e-2;
  std::vector<double> out, lse;
  p.forward(out, lse);
  const std::vector<TypeParam> dout = randoms<TypeParam>(4, queries * heads * d);
  const Gradients g = backward(p, doubles(dout));
  Problem in_rows = p;
  in_rows.heads = 1;
  in_rows.heads_in_rows = heads;
  in_rows.q_offsets = {0, 2 * heads, 5 * heads};
  for_each_isa([&](const char* set) {
    SCOPED_TRACE(set);
    const Executed<TypeParam> run(in_rows, dout);
    EXPECT_LT(distance(run.out, out), allowed);
    check_gradients(in_rows, run, g, allowed);
  });
}

TYPED_TEST(Attention, KeysTakenInChunksGiveTheSame) {
  const std::vector<uint64_t> row = row_keys(200);
  const std::vector<int32_t> queries{0, 70, 75, 79}, keys{0, 1300, 1305, 2329};
  for (int bits = 0; bits < 16; ++bits) {
    SCOPED_TRACE(bits);
    Problem p = problem<TypeParam>(queries, keys, 2, 1, 16);
    p.scale = 1.5;  // the largest score often stands in a later chunk
    p.causal = (bits & 1) != 0;
    if ((bits & 2) != 0) p.drop = {0.1f, row.data(), 4};
    if ((bits & 4) != 0) p.window = 600;
    if ((bits & 8) != 0) p.reach = 1500, p.table = doubles(randoms<float>(8, 2 * 3001));
    check<TypeParam>(p);
  }
}

TYPED_TEST(Attention, TheBiasFollowsThePositionsOfTheRows) {
  const std::vector<int32_t> queries{0, 4, 9, 9, 80}, keys{0, 20, 25, 30, 105};
  for (const bool causal : {false, true}) {
    SCOPED_TRACE(causal);
    Problem p = problem<TypeParam>(queries, keys, 4, 2, 16);
    p.causal = causal;
    p.reach = 9, p.table = doubles(randoms<float>(8, 4 * 19));
    const Stream64 gaps(3, "gaps");
    for (int32_t row = 0, at = 5; row < 80; ++row) {
      p.positions.push_back(at);
      at += 1 + static_cast<int32_t>(gaps.below(static_cast<uint64_t>(row), 3));
    }
    check<TypeParam>(p);
    // Positions one after another are what counting gives.
    Problem counted = p;
    counted.positions.clear();
    for (int32_t row = 0; row < 80; ++row) p.positions[row] = 7 + row;
    const std::vector<TypeParam> dout = randoms<TypeParam>(4, 80 * 4 * 16);
    const Executed<TypeParam> given(p, dout), plain(counted, dout);
    EXPECT_LT(distance(given.out, doubles(plain.out)), 1e-6);
    EXPECT_LT(distance(given.table_gradient, doubles(plain.table_gradient)), 1e-5);
  }
}

TEST(AttentionDouble, BackwardMatchesFiniteDifferences) {
  Problem p = problem<double>({0, 3, 8}, {0, 3, 8}, 2, 1, 4);
  const std::vector<uint64_t> keys = row_keys(8);
  p.drop = {0.3f, keys.data(), 1};
  p.reach = 2, p.table = randoms<double>(9, 10);
  std::vector<double> out, lse;
  const std::vector<double> dout = randoms<double>(4, 8 * 2 * 4);
  const Executed<double> run(p, dout);
  const auto loss = [&] {
    p.forward(out, lse);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
    return sum;
  };
  const auto compare = [&](std::vector<double>& x, const std::vector<double>& gradient) {
    for (size_t i = 0; i < x.size(); ++i) {
      const double old = x[i];
      x[i] = old + 1e-5;
      const double up = loss();
      x[i] = old - 1e-5;
      const double down = loss();
      x[i] = old;
      ASSERT_NEAR(gradient[i], (up - down) / 2e-5, 1e-8);
    }
  };
  compare(p.q, run.dq);
  compare(p.k, run.dk);
  compare(p.v, run.dv);
  compare(p.table, run.table_gradient);
}

TYPED_TEST(Attention, PackedEqualsOneByOneAndDoesNotDependOnThreads) {
  using T = TypeParam;
  Problem p = problem<T>(kRagged, kRagged, 2, 2, 32);
  const std::vector<T> dout = randoms<T>(4, p.q_rows() * 64);
  for_each_isa([&](const char* set) {
    const int before = threads();
    set_threads(3);
    const Executed<T> run(p, dout);
    set_threads(before);
    for (size_t b = 0; b + 1 < kRagged.size(); ++b) {
      const int64_t begin = kRagged[b] * 64, end = kRagged[b + 1] * 64;
      Problem one = p;
      one.q_offsets = one.k_offsets = {0, kRagged[b + 1] - kRagged[b]};
      const auto cut = [&](const std::vector<double>& x) {
        return std::vector<double>(x.begin() + begin, x.begin() + end);
      };
      one.q = cut(p.q), one.k = cut(p.k), one.v = cut(p.v);
      const Executed<T> alone(one, std::vector<T>(dout.begin() + begin, dout.begin() + end), true,
                              8);
      for (int64_t i = begin; i < end; ++i) {
        ASSERT_EQ(value_of(run.out[i]), value_of(alone.out[i - begin])) << set;
        ASSERT_EQ(value_of(run.dq[i]), value_of(alone.dq[i - begin]));
        ASSERT_EQ(value_of(run.dk[i]), value_of(alone.dk[i - begin]));
        ASSERT_EQ(value_of(run.dv[i]), value_of(alone.dv[i - begin]));
      }
    }
  });
}

}  // namespace attention_test
}  // namespace attune::kernels
