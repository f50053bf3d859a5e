#include "kernels/low_rank.h"

#include <gtest/gtest.h>

#include "kernel_test_util.h"

namespace attune::kernels {
namespace low_rank_test {
using namespace test;

template <class T>
class LowRank : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(LowRank, Types);

struct Shape {
  int64_t rows, k, n, rank;
};
/// Odd sizes, tails of every vector width, one row, more rows than one packed depth.
const Shape kShapes[] = {{1, 1, 1, 1},    {5, 7, 3, 2},     {33, 64, 48, 8},    {17, 65, 31, 3},
                         {16, 96, 97, 9}, {530, 33, 66, 8}, {259, 130, 17, 16}, {70, 40, 40, 37}};

std::string name_of(const char* set, const Shape& s) {
  return std::string(set) + " rows " + std::to_string(s.rows) + " k " + std::to_string(s.k) +
         " n " + std::to_string(s.n) + " rank " + std::to_string(s.rank);
}

/// All columns of inner, one target or none.
template <class T>
void pass(const T* x, const T* in, const T* out, const Shape& s, T* inner, T* y) {
  const LowRankTarget<T> target{{inner, 0, s.rank, s.rank}, out, s.n, y};
  low_rank_pass<T>(x, in, s.rows, s.k, {inner, 0, s.rank, s.rank}, &target, y == nullptr ? 0 : 1);
}

// Every operand begins one element behind its memory's start: no alignment may be relied on.
TYPED_TEST(LowRank, PassIsTwoProductsWithTheInnerValuesAsStored) {
  using T = TypeParam;
  for (const Shape& s : kShapes) {
    const std::vector<T> x = randoms<T>(1, s.rows * s.k + 1), in = randoms<T>(2, s.rank * s.k + 1),
                         out = randoms<T>(3, s.rank * s.n + 1),
                         y0 = randoms<T>(4, s.rows * s.n + 1);
    for_each_isa([&](const char* set) {
      std::vector<T> inner(s.rows * s.rank + 1), alone = inner, y = y0;
      pass<T>(x.data() + 1, in.data() + 1, out.data() + 1, s, inner.data() + 1, y.data() + 1);
      pass<T>(x.data() + 1, in.data() + 1, nullptr, s, alone.data() + 1, nullptr);
      for (int64_t r = 0; r < s.rows; ++r) {
        for (int64_t j = 0; j < s.rank; ++j) {
          double sum = 0;
          for (int64_t c = 0; c < s.k; ++c)
            sum += value_of(x[1 + r * s.k + c]) * value_of(in[1 + j * s.k + c]);
          const T made = inner[1 + r * s.rank + j];
          ASSERT_NEAR(value_of(made), sum, tolerance<T>(sum, 1e-4)) << name_of(set, s);
          ASSERT_EQ(value_of(made), value_of(alone[1 + r * s.rank + j]));
        }
        for (int64_t c = 0; c < s.n; ++c) {
          double sum = value_of(y0[1 + r * s.n + c]);
          for (int64_t j = 0; j < s.rank; ++j)
            sum += value_of(inner[1 + r * s.rank + j]) * value_of(out[1 + j * s.n + c]);
          ASSERT_NEAR(value_of(y[1 + r * s.n + c]), sum, tolerance<T>(sum, 4e-4))
              << name_of(set, s) << " at " << r << ", " << c;
        }
      }
    });
  }
}

TYPED_TEST(LowRank, GradientIsTheProductOverRowsEitherWayRound) {
  using T = TypeParam;
  using A = acc_t<T>;
  for (const Shape& s : kShapes) {
    const std::vector<T> x = randoms<T>(5, s.rows * s.k + 1),
                         inner = randoms<T>(6, s.rows * s.rank + 1);
    for_each_isa([&](const char* set) {
      std::vector<A> plain(s.rank * s.k + 1), turned = plain;
      const Columns<const T> all{inner.data() + 1, 0, s.rank, s.rank};
      low_rank_gradient<T>(all, x.data() + 1, s.rows, s.k, 0.75, false, plain.data() + 1);
      low_rank_gradient<T>(all, x.data() + 1, s.rows, s.k, 0.75, true, turned.data() + 1);
      for (int64_t j = 0; j < s.rank; ++j)
        for (int64_t c = 0; c < s.k; ++c) {
          double sum = 0;
          for (int64_t r = 0; r < s.rows; ++r)
            sum += 0.75 * value_of(inner[1 + r * s.rank + j]) * value_of(x[1 + r * s.k + c]);
          ASSERT_NEAR(plain[1 + j * s.k + c], sum, tolerance<A>(sum, 2e-4)) << name_of(set, s);
          ASSERT_EQ(plain[1 + j * s.k + c], turned[1 + c * s.rank + j]) << name_of(set, s);
        }
    });
  }
}

TYPED_TEST(LowRank, TurnTransposesScalesAndRounds) {
  using T = TypeParam;
  using A = acc_t<T>;
  for (const Shape& s : kShapes) {
    const std::vector<A> up = randoms<A>(7, s.n * s.rank + 1);
    for_each_isa([&](const char* set) {
      std::vector<T> w(s.rank * s.n + 1);
      low_rank_turn<T>(up.data() + 1, s.n, s.rank, 2.5, w.data() + 1);
      for (int64_t j = 0; j < s.rank; ++j)
        for (int64_t c = 0; c < s.n; ++c)
          ASSERT_EQ(value_of(w[1 + j * s.n + c]),
                    value_of(to_type<T>(A(2.5) * up[1 + c * s.rank + j])))
              << name_of(set, s);
    });
  }
}

// Rows do not meet, so a batch cut elsewhere gives the same bits.
TYPED_TEST(LowRank, ARowDoesNotDependOnTheOthers) {
  using T = TypeParam;
  const Shape s{45, 70, 50, 8};
  const std::vector<T> x = randoms<T>(1, s.rows * s.k), in = randoms<T>(2, s.rank * s.k),
                       out = randoms<T>(3, s.rank * s.n);
  for_each_isa([&](const char* set) {
    std::vector<T> inner(s.rows * s.rank), y(s.rows * s.n), inner_two = inner, y_two = y;
    pass<T>(x.data(), in.data(), out.data(), s, inner.data(), y.data());
    const int64_t cut = 19;
    pass<T>(x.data(), in.data(), out.data(), {cut, s.k, s.n, s.rank}, inner_two.data(),
            y_two.data());
    pass<T>(x.data() + cut * s.k, in.data(), out.data(), {s.rows - cut, s.k, s.n, s.rank},
            inner_two.data() + cut * s.rank, y_two.data() + cut * s.n);
    EXPECT_EQ(doubles(y), doubles(y_two)) << set;
    EXPECT_EQ(doubles(inner), doubles(inner_two)) << set;
  });
}

// Two terms at one input as one pass and back: the second output reads the last columns, and the
// gradient of x takes all of them at once.
TYPED_TEST(LowRank, SeveralTargetsAreTheirPassesOneByOne) {
  using T = TypeParam;
  const Shape a{37, 70, 50, 8}, b{37, 70, 35, 3};
  const int64_t ranks = a.rank + b.rank;
  const std::vector<T> x = randoms<T>(1, a.rows * a.k), in = randoms<T>(2, ranks * a.k),
                       out_a = randoms<T>(3, a.rank * a.n), out_b = randoms<T>(4, b.rank * b.n);
  for_each_isa([&](const char* set) {
    std::vector<T> inner(a.rows * ranks), y_a(a.rows * a.n), y_b(b.rows * b.n);
    std::vector<T> inner_a(a.rows * a.rank), inner_b(b.rows * b.rank), want_a = y_a, want_b = y_b;
    const LowRankTarget<T> both[] = {
        {{inner.data(), 0, a.rank, ranks}, out_a.data(), a.n, y_a.data()},
        {{inner.data(), a.rank, b.rank, ranks}, out_b.data(), b.n, y_b.data()}};
    low_rank_pass<T>(x.data(), in.data(), a.rows, a.k, {inner.data(), 0, ranks, ranks}, both, 2);
    pass<T>(x.data(), in.data(), out_a.data(), a, inner_a.data(), want_a.data());
    pass<T>(x.data(), in.data() + a.rank * a.k, out_b.data(), b, inner_b.data(), want_b.data());
    EXPECT_EQ(doubles(y_a), doubles(want_a)) << set;
    EXPECT_EQ(doubles(y_b), doubles(want_b)) << set;
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t j = 0; j < ranks; ++j)
        ASSERT_EQ(
            value_of(inner[r * ranks + j]),
            value_of(j < a.rank ? inner_a[r * a.rank + j] : inner_b[r * b.rank + j - a.rank]));
    // The other way: columns made by turns, used together.
    std::vector<T> back(a.rows * ranks), dx(a.rows * a.k);
    const LowRankTarget<T> whole{{back.data(), 0, ranks, ranks}, in.data(), a.k, dx.data()};
    low_rank_pass<T>(y_a.data(), out_a.data(), a.rows, a.n, {back.data(), 0, a.rank, ranks},
                     nullptr, 0);
    low_rank_pass<T>(y_b.data(), out_b.data(), b.rows, b.n, {back.data(), a.rank, b.rank, ranks},
                     &whole, 1);
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t c = 0; c < a.k; ++c) {
        double sum = 0;
        for (int64_t j = 0; j < ranks; ++j)
          sum += value_of(back[r * ranks + j]) * value_of(in[j * a.k + c]);
        ASSERT_NEAR(value_of(dx[r * a.k + c]), sum, tolerance<T>(sum, 1e-2)) << set;
      }
    // Gradients from some columns are those from a matrix of them.
    std::vector<acc_t<T>> some(b.rank * b.n), alone = some;
    low_rank_gradient<T>({inner.data(), a.rank, b.rank, ranks}, y_b.data(), b.rows, b.n, 2, false,
                         some.data());
    low_rank_gradient<T>({inner_b.data(), 0, b.rank, b.rank}, y_b.data(), b.rows, b.n, 2, false,
                         alone.data());
    EXPECT_EQ(doubles(some), doubles(alone)) << set;
  });
}

}  // namespace low_rank_test
}  // namespace attune::kernels
