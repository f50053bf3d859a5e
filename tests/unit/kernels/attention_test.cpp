#include "attention_reference.h"

namespace attune::kernels {
namespace attention_test {

template <class T>
void check(const Problem& p) {
  const double allowed = kAllowed<T>;
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
        EXPECT_EQ(run.log_sums[i], lse[i]);
      } else {
        const double expected = lse[i] / std::log(2.0);
        ASSERT_NEAR(run.log_sums[i], expected, allowed * (1 + std::abs(expected)));
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
    const double allowed = kAllowed<TypeParam>;
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
  const double allowed = kAllowed<TypeParam>;
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

/// Two keys, of which one's value is 1 and the other's 0: the result is that one's probability.
TYPED_TEST(Attention, SmallProbabilitiesHaveTheirDigits) {
  using T = TypeParam;
  Problem p = problem<T>({0, 1}, {0, 2}, 1, 1, 1);
  p.scale = 1;
  p.q = {1};
  p.v = {0, 1};
  for (double score = 0; score > -100; score -= 0.37) {
    const double rounded = value_of(to_type<T>(score));
    p.k = {0, rounded};
    const double expected = 1 / (1 + std::exp(-rounded));
    for_each_isa([&](const char* set) {
      const Executed<T> run(p, {});
      // What is below the type's normal numbers may be 0.
      const double unit = sizeof(T) == 8 ? 1e-15 : sizeof(T) == 4 ? 6e-8 : 2e-3;
      const double noise = expected < 2e-38 ? expected : unit * (3 - rounded) * expected;
      ASSERT_NEAR(value_of(run.out[0]), expected, noise) << set << " " << rounded;
    });
  }
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
