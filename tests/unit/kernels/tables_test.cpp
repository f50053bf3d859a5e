#include <gtest/gtest.h>

#include "kernel_test_util.h"

namespace attune::kernels {
namespace tables_test {
using namespace test;

template <class T>
class Tables : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(Tables, Types);

TYPED_TEST(Tables, EmbeddingAddsTablesAndScattersGradients) {
  using T = TypeParam;
  using A = acc_t<T>;
  const int64_t rows = 203, cols = 70, vocabulary = 31;
  const std::vector<A> words = randoms<A>(1, vocabulary * cols), types = randoms<A>(2, 2 * cols);
  const std::vector<T> dy = randoms<T>(3, rows * cols);
  std::vector<int32_t> word(rows), type(rows);
  const Stream64 stream(1, "ids");
  for (int64_t r = 0; r < rows; ++r) {
    word[r] = static_cast<int32_t>(stream.below(static_cast<uint64_t>(r), vocabulary - 1));
    type[r] = static_cast<int32_t>(r % 2);
  }
  for_each_isa([&](const char* set) {
    std::vector<T> y(rows * cols);
    const A* tables[] = {words.data(), types.data()};
    const int32_t* indices[] = {word.data(), type.data()};
    embedding_forward<T>(2, tables, indices, rows, cols, y.data());
    std::vector<A> gradient(vocabulary * cols, 1), again(vocabulary * cols, 1);
    embedding_backward<T>(dy.data(), word.data(), rows, cols, vocabulary, gradient.data());
    const int before = threads();
    set_threads(3);
    embedding_backward<T>(dy.data(), word.data(), rows, cols, vocabulary, again.data());
    set_threads(before);
    EXPECT_EQ(gradient, again);
    std::vector<double> expected(vocabulary * cols, 1);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const double sum = static_cast<double>(words[word[r] * cols + c]) +
                           static_cast<double>(types[type[r] * cols + c]);
        ASSERT_NEAR(value_of(y[r * cols + c]), sum, tolerance<T>(sum, 3e-7)) << set;
        expected[word[r] * cols + c] += value_of(dy[r * cols + c]);
      }
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(gradient[i], expected[i], sizeof(T) == 8 ? 1e-13 : 1e-5);
    embedding_backward<T>(dy.data(), word.data(), 0, cols, vocabulary, gradient.data());
  });
}

TYPED_TEST(Tables, PoolingMatchesItsDefinitionBothWays) {
  using T = TypeParam;
  using A = acc_t<T>;
  const std::vector<int32_t> offsets{0, 1, 6, 6, 40};  // the third sequence is empty
  const int64_t sequences = 4, cols = 45, rows = 40;
  const std::vector<T> x = randoms<T>(1, rows * cols);
  const std::vector<A> dy = randoms<A>(2, sequences * cols);
  for (const Pool kind : {Pool::First, Pool::Last, Pool::Mean, Pool::Max})
    for_each_isa([&](const char* set) {
      std::vector<A> y(sequences * cols, -1);
      std::vector<int32_t> argmax(sequences * cols);
      std::vector<T> dx(rows * cols, to_type<T>(9));
      pool_forward<T>(kind, x.data(), offsets.data(), sequences, cols, y.data(), argmax.data());
      pool_backward<T>(kind, dy.data(), offsets.data(), sequences, cols, argmax.data(), dx.data());
      for (int64_t b = 0; b < sequences; ++b)
        for (int64_t c = 0; c < cols; ++c) {
          const int64_t begin = offsets[b], end = offsets[b + 1];
          double expected = 0;
          int64_t best = begin;
          for (int64_t r = begin; r < end; ++r) {
            if (value_of(x[r * cols + c]) > value_of(x[best * cols + c])) best = r;
            if (kind == Pool::Mean)
              expected += value_of(x[r * cols + c]) / static_cast<double>(end - begin);
          }
          const int64_t source = kind == Pool::First ? begin : kind == Pool::Last ? end - 1 : best;
          if (kind != Pool::Mean && begin < end) expected = value_of(x[source * cols + c]);
          ASSERT_NEAR(y[b * cols + c], expected, 1e-6) << set;
          for (int64_t r = begin; r < end; ++r) {
            const double d = static_cast<double>(dy[b * cols + c]);
            const double share = kind == Pool::Mean ? d / static_cast<double>(end - begin)
                                 : r == source      ? d
                                                    : 0;
            ASSERT_NEAR(value_of(dx[r * cols + c]), share, tolerance<T>(share, 1e-7)) << set;
          }
        }
    });
}

/// Loss of one row in double, straight from the definition.
double row_loss(const std::vector<double>& z, int64_t label, const std::vector<double>& weights,
                double smoothing) {
  double sum = 0, loss = 0;
  for (const double value : z) sum += std::exp(value);
  const double lse = std::log(sum);
  for (size_t c = 0; c < z.size(); ++c) {
    const double w = weights.empty() ? 1 : weights[c];
    loss += smoothing / static_cast<double>(z.size()) * w * (lse - z[c]);
    if (static_cast<int64_t>(c) == label) loss += (1 - smoothing) * w * (lse - z[c]);
  }
  return loss;
}

TYPED_TEST(Tables, CrossEntropyMatchesTheDefinitionAndFiniteDifferences) {
  using T = TypeParam;
  for (const auto& [rows, classes] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {1, 1}, {9, 2}, {40, 133}})
    for (const double smoothing : {0.0, 0.1})
      for (const bool weighted : {false, true}) {
        const std::vector<T> logits = randoms<T>(1, rows * classes, 3);
        std::vector<T> weights = randoms<T>(2, classes);
        for (T& w : weights) w = to_type<T>(std::abs(value_of(w)) + 0.1);
        const std::vector<double> w = weighted ? doubles(weights) : std::vector<double>();
        std::vector<int64_t> labels(rows);
        for (int64_t r = 0; r < rows; ++r) labels[r] = r % 5 == 3 ? -100 : (r * 7) % classes;
        for_each_isa([&, rows = rows, classes = classes](const char* set) {
          std::vector<T> d(logits.size(), to_type<T>(5));
          double count = -1;
          const double found =
              cross_entropy<T>(logits.data(), labels.data(), weighted ? weights.data() : nullptr,
                               smoothing, rows, classes, d.data(), &count);
          double total = 0, counted = 0;
          for (int64_t r = 0; r < rows; ++r) {
            std::vector<double> z(classes);
            for (int64_t c = 0; c < classes; ++c) z[c] = value_of(logits[r * classes + c]);
            const bool skipped = labels[r] < 0;
            if (!skipped)
              total += row_loss(z, labels[r], w, smoothing), counted += weighted ? w[labels[r]] : 1;
            for (int64_t c = 0; c < classes; c += 5) {
              double slope = 0;
              if (!skipped) {
                const double old = z[c];
                z[c] = old + 1e-5;
                const double up = row_loss(z, labels[r], w, smoothing);
                z[c] = old - 1e-5;
                slope = (up - row_loss(z, labels[r], w, smoothing)) / 2e-5;
                z[c] = old;
              }
              ASSERT_NEAR(value_of(d[r * classes + c]), slope, tolerance<T>(slope, 0) + 2e-6)
                  << set;
            }
          }
          EXPECT_NEAR(found, total, 1e-5 * (1 + total)) << set;
          EXPECT_NEAR(count, counted, 1e-9);
          EXPECT_EQ(
              cross_entropy<T>(logits.data(), labels.data(), weighted ? weights.data() : nullptr,
                               smoothing, rows, classes, nullptr, nullptr),
              found);
          std::vector<T> same = logits;  // gradient in place
          cross_entropy<T>(same.data(), labels.data(), weighted ? weights.data() : nullptr,
                           smoothing, rows, classes, same.data(), nullptr);
          for (size_t i = 0; i < d.size(); ++i) ASSERT_EQ(value_of(same[i]), value_of(d[i]));
        });
      }
}

template <class T>
void check_adamw(bool masked) {
  const int64_t count = 1003;
  const std::vector<T> start = randoms<T>(1, count);
  std::vector<uint8_t> mask(count);
  for (int64_t i = 0; i < count; ++i) mask[i] = i % 3 != 0;
  for_each_isa([&](const char* set) {
    std::vector<T> p = start, m(count, 0), v(count, 0);
    std::vector<double> rp = doubles(start), rm(count, 0), rv(count, 0);
    AdamW o{1e-2, 0.9, 0.99, 1e-8, 0.1, 1, 0.5};
    for (o.step = 1; o.step <= 5; ++o.step) {
      const std::vector<T> g = randoms<T>(static_cast<uint64_t>(10 + o.step), count);
      adamw<T>(o, p.data(), g.data(), m.data(), v.data(), masked ? mask.data() : nullptr, count);
      for (int64_t i = 0; i < count; ++i) {
        if (masked && mask[i] == 0) continue;
        const double x = static_cast<double>(g[i]) * o.gradient_scale,
                     s = static_cast<double>(o.step);
        rm[i] = o.beta1 * rm[i] + (1 - o.beta1) * x;
        rv[i] = o.beta2 * rv[i] + (1 - o.beta2) * x * x;
        const double mhat = rm[i] / (1 - std::pow(o.beta1, s)),
                     vhat = rv[i] / (1 - std::pow(o.beta2, s));
        rp[i] = rp[i] * (1 - o.lr * o.weight_decay) - o.lr * mhat / (std::sqrt(vhat) + o.eps);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_NEAR(p[i], rp[i], sizeof(T) == 8 ? 1e-13 : 1e-6) << set << " " << i;
      ASSERT_NEAR(m[i], rm[i], sizeof(T) == 8 ? 1e-14 : 1e-6);
      ASSERT_NEAR(v[i], rv[i], sizeof(T) == 8 ? 1e-14 : 1e-6);
      if (masked && mask[i] == 0) {
        ASSERT_TRUE(p[i] == start[i] && m[i] == 0 && v[i] == 0);
      }
    }
  });
}

TEST(AdamWStep, FollowsTheFormulaOverSeveralSteps) {
  check_adamw<float>(false);
  check_adamw<double>(false);
}
/// Some rows with a gradient, against adamw on them alone.
template <class T>
void check_adamw_rows() {
  const int64_t rows = 7, cols = 37;
  const std::vector<int64_t> chosen{4, 1};
  const std::vector<T> start = randoms<T>(1, rows * cols), g = randoms<T>(2, 2 * cols),
                       before = randoms<T>(3, rows * cols);
  for_each_isa([&](const char* set) {
    std::vector<T> p = start, m = before, v(rows * cols, 1), q = start, n = before, w = v;
    const AdamW o{1e-2, 0.9, 0.99, 1e-8, 0.1, 3, 0.5};
    adamw_rows<T>(o, chosen.data(), 2, g.data(), p.data(), m.data(), v.data(), cols);
    for (size_t i = 0; i < chosen.size(); ++i) {
      const int64_t at = chosen[i] * cols;
      adamw<T>(o, q.data() + at, g.data() + i * cols, n.data() + at, w.data() + at, nullptr, cols);
    }
    EXPECT_TRUE(p == q && m == n && v == w) << set;
    EXPECT_NE(p[cols], start[cols]) << "row 1 moved";
  });
}

/// Steps that rows take late, against the same steps with gradients of zero, one by one.
template <class T>
void check_adamw_missed() {
  constexpr int64_t kRows = 6, kCols = 37;
  constexpr int32_t kSteps = 9;
  const std::vector<MissedRow> missed{{4, 0, true}, {1, 5, true}, {2, 3, false}, {5, 8, true}};
  const std::vector<T> start = randoms<T>(1, kRows * kCols), g = randoms<T>(2, kRows * kCols);
  for_each_isa([&](const char* set) {
    AdamW o{1e-2, 0.9, 0.99, 1e-8, 0.1, 1, 0.5};
    std::vector<T> p = start, m(kRows * kCols, 0), v = m;
    adamw<T>(o, p.data(), g.data(), m.data(), v.data(), nullptr, kRows * kCols);
    std::fill_n(m.begin() + 2 * kCols, kCols, T(0));
    std::fill_n(v.begin() + 2 * kCols, kCols, T(0));
    std::vector<T> q = p, n = m, w = v;
    std::fill_n(m.begin() + 2 * kCols, kCols, std::nan(""));  // not read
    const std::vector<T> zero(kCols, 0);
    std::vector<AdamWRest> steps;
    for (int32_t s = 0; s < kSteps; ++s) {
      o.step = s + 2;
      o.lr = 1e-2 / (s + 1);
      steps.push_back(adamw_rest(o));
      for (const MissedRow& row : missed) {
        const int64_t at = row.row * kCols;
        if (s >= row.first)
          adamw<T>(o, q.data() + at, zero.data(), n.data() + at, w.data() + at, nullptr, kCols);
      }
    }
    adamw_missed<T>(o, steps.data(), kSteps, missed.data(), static_cast<int64_t>(missed.size()),
                    p.data(), m.data(), v.data(), kCols);
    EXPECT_TRUE(p == q && v == w) << set;
    EXPECT_TRUE(std::isnan(m[2 * kCols]) && std::isnan(m[3 * kCols - 1])) << set;
    std::fill_n(m.begin() + 2 * kCols, kCols, T(0));
    EXPECT_TRUE(m == n) << set;
    EXPECT_NE(p[2 * kCols], start[2 * kCols]) << "the decay goes on";
  });
}

TEST(AdamWStep, SomeRowsMoveAsIfAlone) {
  check_adamw_rows<float>();
  check_adamw_rows<double>();
}
TEST(AdamWStep, MissedStepsAreThoseWithZeros) {
  check_adamw_missed<float>();
  check_adamw_missed<double>();
}
TEST(AdamWStep, LeavesMaskedElementsAlone) {
  check_adamw<float>(true);
  check_adamw<double>(true);
}

}  // namespace tables_test
}  // namespace attune::kernels
