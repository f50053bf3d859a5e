#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "kernel_test_util.h"

namespace attune::kernels {
namespace elementwise_test {
using namespace test;

double cdf(double x) {
  return 0.5 * std::erfc(-x / std::sqrt(2.0));
}
double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

double f(Activation kind, double x) {
  switch (kind) {
    case Activation::Gelu:
      return x * cdf(x);
    case Activation::GeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::QuickGelu:
      return x * sigmoid(1.702 * x);
    case Activation::Silu:
      return x * sigmoid(x);
    case Activation::Relu:
      return x > 0 ? x : 0;
    case Activation::Tanh:
      return std::tanh(x);
    case Activation::Sigmoid:
      return sigmoid(x);
    case Activation::Identity:
      return x;
  }
  return 0;
}
/// Slope by central differences in double.
double slope(Activation kind, double x) {
  const double h = 1e-5;
  return (f(kind, x + h) - f(kind, x - h)) / (2 * h);
}

constexpr Activation kAll[] = {Activation::Gelu,    Activation::GeluTanh, Activation::QuickGelu,
                               Activation::Silu,    Activation::Relu,     Activation::Tanh,
                               Activation::Sigmoid, Activation::Identity};

template <class T>
class Elementwise : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(Elementwise, Types);

template <class T>
void check_near(const T& found, double expected, double noise, const char* what) {
  ASSERT_NEAR(value_of(found), expected, tolerance<T>(expected, noise)) << what;
}

TYPED_TEST(Elementwise, ActivationsAndTheirGradientsMatchTheFormulas) {
  using T = TypeParam;
  for (const Activation kind : kAll)
    for (const int64_t count : {0, 1, 15, 16, 17, 1000, 20011}) {
      // An offset of one element makes every pointer unaligned.
      const std::vector<T> x = randoms<T>(1, count + 1, 3), dy = randoms<T>(2, count + 1);
      for_each_isa([&](const char* set) {
        std::vector<T> y(x.size()), dx(x.size());
        activation_forward(kind, x.data() + 1, y.data() + 1, count);
        activation_backward(kind, x.data() + 1, dy.data() + 1, dx.data() + 1, count);
        std::vector<T> over = dy;
        activation_backward(kind, x.data() + 1, over.data() + 1, over.data() + 1, count);
        for (int64_t i = 1; i <= count; ++i)
          ASSERT_EQ(value_of(over[i]), value_of(dx[i])) << set << ": written over dy";
        for (int64_t i = 1; i <= count; i += count > 5000 ? 13 : 1) {
          const double v = value_of(x[i]);
          check_near(y[i], f(kind, v), 1e-7 * (1 + std::abs(v)), set);
          const double d =
              std::abs(v) < 1e-4 && kind == Activation::Relu ? (v > 0) : slope(kind, v);
          ASSERT_NEAR(value_of(dx[i]), value_of(dy[i]) * d,
                      tolerance<T>(value_of(dy[i]) * d, 0) +
                          (sizeof(T) == 8 ? 1e-9 : 2e-6) * (1 + std::abs(value_of(dy[i]))))
              << set << " x=" << v << " kind " << int(kind);
        }
      });
    }
}

TEST(ElementwiseFloat, GeluOfOneIsKnown) {
  for_each_isa([&](const char* set) {
    const float x = 1;
    float y = 0;
    activation_forward(Activation::Gelu, &x, &y, 1);
    EXPECT_NEAR(y, 0.8413447461, 1e-6) << set;
  });
}

TEST(ElementwiseFloat, ActivationsAreAccurateOverTheWholeRange) {
  std::vector<float> x;
  for (double v = -100; v <= 100; v += 0.0037) x.push_back(static_cast<float>(v));
  for (const Activation kind : kAll)
    for_each_isa([&](const char* set) {
      std::vector<float> y(x.size());
      activation_forward(kind, x.data(), y.data(), static_cast<int64_t>(x.size()));
      for (size_t i = 0; i < x.size(); ++i)
        ASSERT_NEAR(y[i], f(kind, x[i]), 2.5e-7 * (1 + std::abs(f(kind, x[i]))))
            << set << " " << x[i] << " kind " << int(kind);
    });
}

TEST(ElementwiseFloat, NanStaysNanAndInfinityIsHandled) {
  const float inf = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  for_each_isa([&](const char* set) {
    for (const Activation kind : kAll) {
      const float x[2] = {nan, inf};
      float y[2];
      activation_forward(kind, x, y, 2);
      EXPECT_TRUE(std::isnan(y[0])) << set << int(kind);
      EXPECT_EQ(y[1], kind == Activation::Tanh || kind == Activation::Sigmoid ? 1 : inf)
          << set << int(kind);
    }
  });
}

TYPED_TEST(Elementwise, GatedFormsMultiplyByUp) {
  using T = TypeParam;
  const int64_t count = 531;
  const std::vector<T> gate = randoms<T>(3, count), up = randoms<T>(4, count),
                       dy = randoms<T>(5, count);
  for (const Activation kind : kAll)
    for_each_isa([&](const char* set) {
      std::vector<T> y(count), dgate(count), dup(count);
      gated_forward(kind, gate.data(), up.data(), y.data(), count);
      gated_backward(kind, gate.data(), up.data(), dy.data(), dgate.data(), dup.data(), count);
      std::vector<T> over = dy, gate_over(count);
      gated_backward(kind, gate.data(), up.data(), over.data(), gate_over.data(), over.data(),
                     count);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(value_of(over[i]), value_of(dup[i])) << set << ": written over dy";
        ASSERT_EQ(value_of(gate_over[i]), value_of(dgate[i])) << set << ": written over dy";
        const double g = value_of(gate[i]), u = value_of(up[i]), d = value_of(dy[i]);
        check_near(y[i], f(kind, g) * u, 2e-6, set);
        check_near(dup[i], f(kind, g) * d, 2e-6, set);
        ASSERT_NEAR(value_of(dgate[i]), d * u * slope(kind, g),
                    tolerance<T>(d * u * slope(kind, g), 0) + 1e-5)
            << set;
      }
    });
}

TYPED_TEST(Elementwise, DropoutFollowsTheCounterDefinition) {
  using T = TypeParam;
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{3, 5}, {7, 129}, {40, 384}, {0, 8}}) {
    const std::vector<T> x = randoms<T>(6, rows * cols);
    const std::vector<uint64_t> keys = row_keys(rows);
    for (const float p : {0.1f, 0.5f, 0.0f}) {
      const Dropout drop{p, keys.data(), 9};
      for_each_isa([&, rows = rows, cols = cols](const char* set) {
        std::vector<T> y(x.size());
        dropout(x.data(), y.data(), rows, cols, drop);
        for (int64_t i = 0; i < rows * cols; ++i)
          check_near(y[i], value_of(x[i]) * drop_factor(drop, i / cols, i % cols, 0), 1e-6, set);
        std::vector<T> again = x;
        dropout(again.data(), again.data(), rows, cols, drop);
        for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(value_of(again[i]), value_of(y[i]));
      });
    }
  }
}

TEST(ElementwiseFloat, DropoutKeepsTheStatedShare) {
  const int64_t rows = 100, cols = 1000;
  std::vector<float> x(rows * cols, 1.0f), y(x.size());
  const std::vector<uint64_t> keys = row_keys(rows);
  dropout(x.data(), y.data(), rows, cols, {0.1f, keys.data(), 3});
  EXPECT_NEAR(std::accumulate(y.begin(), y.end(), 0.0) / (rows * cols), 1.0, 0.005);
  dropout(x.data(), y.data(), rows, cols, {1.0f, keys.data(), 3});
  EXPECT_EQ(std::accumulate(y.begin(), y.end(), 0.0), 0.0);
}

TYPED_TEST(Elementwise, AddInplaceAdds) {
  using T = TypeParam;
  const std::vector<T> x = randoms<T>(7, 77), y = randoms<T>(8, 77);
  for_each_isa([&](const char* set) {
    std::vector<T> z = y;
    add_inplace(z.data(), x.data(), 77);
    for (int i = 0; i < 77; ++i) check_near(z[i], value_of(x[i]) + value_of(y[i]), 1e-7, set);
  });
}

TEST(Convert, RoundsToNearestEvenAndKeepsSpecialValues) {
  std::vector<float> x;
  const Stream64 stream(1, "bits");
  for (uint64_t i = 0; i < 20000; ++i) {
    const uint32_t bits = static_cast<uint32_t>(stream.bits(i));
    float value;
    std::memcpy(&value, &bits, 4);
    if (std::abs(value) < 3e38f) x.push_back(value);
  }
  x.insert(x.end(), {1.00390625f, 1.01171875f, 1e-40f, -0.0f});
  const size_t plain = x.size();
  x.insert(x.end(), {INFINITY, -INFINITY, 3.4e38f, NAN});
  uint32_t bits = 0x7f800001;  // a NaN whose payload sits in the dropped half
  float sneaky;
  std::memcpy(&sneaky, &bits, 4);
  x.push_back(sneaky);
  for_each_isa([&](const char* set) {
    std::vector<bf16> y(x.size());
    std::vector<float> back(x.size());
    convert(x.data(), y.data(), static_cast<int64_t>(x.size()));
    convert(y.data(), back.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < plain; ++i) {
      ASSERT_EQ(y[i].bits, to_type<bf16>(x[i]).bits) << set << " " << x[i];
      ASSERT_EQ(back[i], static_cast<float>(value_of(y[i])));
    }
    EXPECT_EQ(back[plain], INFINITY);
    EXPECT_EQ(back[plain + 1], -INFINITY);
    EXPECT_EQ(back[plain + 2], INFINITY);
    EXPECT_TRUE(std::isnan(back[plain + 3]) && std::isnan(back[plain + 4])) << set;
  });
}

TYPED_TEST(Elementwise, ColumnSumsMatchAndDoNotDependOnThreads) {
  using T = TypeParam;
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {1, 1}, {301, 37}, {1000, 384}}) {
    const std::vector<T> x = randoms<T>(9, rows * cols);
    for_each_isa([&, rows = rows, cols = cols](const char* set) {
      std::vector<acc_t<T>> out(cols, 2), again(cols, 2);
      column_sum(x.data(), rows, cols, out.data(), true);
      const int before = threads();
      set_threads(3);
      column_sum(x.data(), rows, cols, again.data(), true);
      set_threads(before);
      EXPECT_EQ(out, again);
      for (int64_t c = 0; c < cols; ++c) {
        double sum = 2;
        for (int64_t r = 0; r < rows; ++r) sum += value_of(x[r * cols + c]);
        ASSERT_NEAR(out[c], sum, sizeof(T) == 8 ? 1e-12 : 1e-4) << set;
      }
      column_sum(x.data(), rows, cols, out.data(), false);
      if (rows > 0) {
        ASSERT_NEAR(out[0] + 2, again[0], 1e-4);
      } else {
        ASSERT_EQ(out[0], 0);
      }
    });
  }
}

TYPED_TEST(Elementwise, SumOfSquaresIsExactAndPropagatesNan) {
  using T = TypeParam;
  std::vector<T> x = randoms<T>(10, 100003);
  double sum = 0;
  for (const T& value : x) sum += value_of(value) * value_of(value);
  const double found = sum_of_squares(x.data(), 100003);
  EXPECT_NEAR(found, sum, 1e-8);
  const int before = threads();
  set_threads(3);
  EXPECT_EQ(sum_of_squares(x.data(), 100003), found);
  set_threads(before);
  x[77] = to_type<T>(INFINITY);
  EXPECT_TRUE(std::isinf(sum_of_squares(x.data(), 100003)));
}

TEST(Isa, LimitLowersAndRestores) {
  limit_isa(Isa::Ref);
  EXPECT_EQ(isa(), Isa::Ref);
  EXPECT_STREQ(isa_name(isa()), "ref");
  limit_isa(kBestIsa);
  EXPECT_GE(isa(), Isa::Ref);
}

}  // namespace elementwise_test
}  // namespace attune::kernels
