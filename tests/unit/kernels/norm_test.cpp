#include <gtest/gtest.h>

#include "kernel_test_util.h"

namespace attune::kernels {
namespace norm_test {
using namespace test;

template <class T>
class Norm : public testing::Test {};
using Types = testing::Types<float, bf16, double>;
TYPED_TEST_SUITE(Norm, Types);

struct Rows {
  std::vector<double> h, y, mean, rstd;
};

/// h = x * factor + residual, normalised, all in double.
Rows reference(NormKind kind, const std::vector<double>& x, const std::vector<double>& residual,
               const Dropout& drop, const std::vector<double>& gamma,
               const std::vector<double>& beta, double eps, int64_t rows, int64_t cols,
               const std::vector<double>* stored_h = nullptr) {
  Rows out{std::vector<double>(x.size()), std::vector<double>(x.size()), std::vector<double>(rows),
           std::vector<double>(rows)};
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0, square = 0;
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = r * cols + c;
      out.h[i] = stored_h != nullptr
                     ? (*stored_h)[i]
                     : x[i] * drop_factor(drop, r, c, 0) + (residual.empty() ? 0 : residual[i]);
      mean += out.h[i] / static_cast<double>(cols);
    }
    if (kind == NormKind::Rms) mean = 0;
    for (int64_t c = 0; c < cols; ++c)
      square += std::pow(out.h[r * cols + c] - mean, 2) / static_cast<double>(cols);
    out.mean[r] = mean;
    out.rstd[r] = 1 / std::sqrt(square + eps);
    for (int64_t c = 0; c < cols; ++c)
      out.y[r * cols + c] =
          (out.h[r * cols + c] - mean) * out.rstd[r] * gamma[c] + (beta.empty() ? 0 : beta[c]);
  }
  return out;
}

template <class A>
std::vector<A> accumulators(uint64_t seed, int64_t count) {
  return randoms<A>(seed, count);
}

TYPED_TEST(Norm, ForwardMatchesTheDefinition) {
  using T = TypeParam;
  using A = acc_t<T>;
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 17}, {5, 384}, {33, 100}, {0, 4}})
    for (int bits = 0; bits < 16; ++bits) {
      const NormKind kind = (bits & 1) != 0 ? NormKind::Rms : NormKind::Layer;
      const bool with_residual = (bits & 2) != 0, with_drop = (bits & 4) != 0,
                 with_beta = (bits & 8) != 0;
      const std::vector<T> x = randoms<T>(1, rows * cols + 1),
                           residual = randoms<T>(2, rows * cols);
      const std::vector<A> gamma = accumulators<A>(3, cols), beta = accumulators<A>(4, cols);
      const std::vector<uint64_t> keys = row_keys(rows);
      const Dropout drop{with_drop ? 0.2f : 0.0f, keys.data(), 5};
      for_each_isa([&, rows = rows, cols = cols](const char* set) {
        std::vector<T> h(rows * cols), y(rows * cols);
        std::vector<A> mean(rows), rstd(rows);
        norm_forward<T>(kind, x.data() + 1, with_residual ? residual.data() : nullptr, drop,
                        gamma.data(), with_beta ? beta.data() : nullptr, 1e-5, rows, cols, h.data(),
                        y.data(), mean.data(), rstd.data());
        std::vector<double> dx = doubles(x);
        dx.erase(dx.begin());
        const std::vector<double> r = with_residual ? doubles(residual) : std::vector<double>();
        const std::vector<double> b = with_beta ? doubles(beta) : std::vector<double>();
        const Rows first = reference(kind, dx, r, drop, doubles(gamma), b, 1e-5, rows, cols);
        const std::vector<double> stored = doubles(h);
        const Rows second =
            reference(kind, dx, r, drop, doubles(gamma), b, 1e-5, rows, cols, &stored);
        for (int64_t i = 0; i < rows * cols; ++i) {
          ASSERT_NEAR(stored[i], first.h[i], tolerance<T>(first.h[i], 5e-7)) << set;
          ASSERT_NEAR(value_of(y[i]), second.y[i], tolerance<T>(second.y[i], 2e-5))
              << set << " cols " << cols;
        }
        for (int64_t i = 0; i < rows; ++i) {
          ASSERT_NEAR(mean[i], second.mean[i], 1e-6);
          ASSERT_NEAR(rstd[i], second.rstd[i], 1e-5 * second.rstd[i]);
        }
      });
    }
}

TYPED_TEST(Norm, WithoutResidualAndDropoutHMayBeNull) {
  using T = TypeParam;
  using A = acc_t<T>;
  const int64_t rows = 4, cols = 50;
  const std::vector<T> x = randoms<T>(1, rows * cols);
  const std::vector<A> gamma = accumulators<A>(3, cols);
  for_each_isa([&](const char* set) {
    std::vector<T> h(x.size()), y(x.size()), z(x.size());
    std::vector<A> mean(rows), rstd(rows);
    norm_forward<T>(NormKind::Layer, x.data(), nullptr, {}, gamma.data(), nullptr, 1e-5, rows, cols,
                    h.data(), y.data(), mean.data(), rstd.data());
    norm_forward<T>(NormKind::Layer, x.data(), nullptr, {}, gamma.data(), nullptr, 1e-5, rows, cols,
                    nullptr, z.data(), mean.data(), rstd.data());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(value_of(y[i]), value_of(z[i])) << set;
  });
}

/// loss = sum dy * norm(h) + sum dh_extra * h as a function of h, gamma, beta.
double loss(NormKind kind, const std::vector<double>& h, const std::vector<double>& gamma,
            const std::vector<double>& beta, const std::vector<double>& dy,
            const std::vector<double>& extra, double eps, int64_t rows, int64_t cols) {
  const Rows out = reference(kind, h, {}, {}, gamma, beta, eps, rows, cols);
  double sum = 0;
  for (size_t i = 0; i < h.size(); ++i)
    sum += dy[i] * out.y[i] + (extra.empty() ? 0 : extra[i] * h[i]);
  return sum;
}

TYPED_TEST(Norm, BackwardMatchesFiniteDifferences) {
  using T = TypeParam;
  using A = acc_t<T>;
  for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {35, 21}})
    for (const NormKind kind : {NormKind::Layer, NormKind::Rms})
      for (const bool with_extra : {false, true}) {
        const double eps = 1e-5;
        const std::vector<T> h = randoms<T>(1, rows * cols), dy = randoms<T>(2, rows * cols);
        const std::vector<T> extra = randoms<T>(3, rows * cols);
        const std::vector<A> gamma = accumulators<A>(4, cols), beta = accumulators<A>(5, cols);
        const std::vector<double> dh_extra = with_extra ? doubles(extra) : std::vector<double>();
        const Rows state =
            reference(kind, doubles(h), {}, {}, doubles(gamma), doubles(beta), eps, rows, cols);
        std::vector<A> mean(rows), rstd(rows);
        for (int64_t r = 0; r < rows; ++r)
          mean[r] = static_cast<A>(state.mean[r]), rstd[r] = static_cast<A>(state.rstd[r]);
        const std::vector<uint64_t> keys = row_keys(rows);
        const Dropout drop{0.3f, keys.data(), 2};
        for_each_isa([&, rows = rows, cols = cols](const char* set) {
          std::vector<T> dh(h.size()), dx(h.size());
          std::vector<A> dgamma(cols, 1), dbeta(cols, 1);
          norm_backward<T>(kind, dy.data(), with_extra ? extra.data() : nullptr, h.data(),
                           mean.data(), rstd.data(), gamma.data(), drop, rows, cols, dh.data(),
                           dx.data(), dgamma.data(), dbeta.data());
          const auto at = [&](const std::vector<double>& x, const std::vector<double>& g,
                              const std::vector<double>& b) {
            return loss(kind, x, g, b, doubles(dy), dh_extra, eps, rows, cols);
          };
          const double step = 1e-5;
          std::vector<double> x = doubles(h), g = doubles(gamma), b = doubles(beta);
          const auto derivative = [&](double& value) {
            const double old = value;
            value = old + step;
            const double up = at(x, g, b);
            value = old - step;
            const double down = at(x, g, b);
            value = old;
            return (up - down) / (2 * step);
          };
          for (int64_t i = 0; i < rows * cols; i += 3) {
            const double d = derivative(x[i]);
            ASSERT_NEAR(value_of(dh[i]), d, tolerance<T>(d, 0) + 5e-5) << set;
            ASSERT_NEAR(value_of(dx[i]), value_of(dh[i]) * drop_factor(drop, i / cols, i % cols, 0),
                        tolerance<T>(2 * d, 0) * 2 + 1e-5)
                << set;
          }
          for (int64_t c = 0; c < cols; ++c) {
            ASSERT_NEAR(dgamma[c], 1 + derivative(g[c]), 1e-4) << set;
            ASSERT_NEAR(dbeta[c], 1 + derivative(b[c]), 1e-4) << set;
          }
        });
      }
}

TYPED_TEST(Norm, RowsDoNotDependOnTheirNeighboursNorSumsOnThreads) {
  using T = TypeParam;
  using A = acc_t<T>;
  const int64_t rows = 300, cols = 100, at = 7;
  const std::vector<T> x = randoms<T>(1, rows * cols), dy = randoms<T>(2, rows * cols);
  const std::vector<A> gamma = accumulators<A>(3, cols), beta = accumulators<A>(4, cols);
  for_each_isa([&](const char* set) {
    std::vector<T> y(x.size()), one(cols), dh(x.size()), dh_again(x.size());
    std::vector<A> mean(rows), rstd(rows), dgamma(cols), dgamma_again(cols), m(1), s(1);
    norm_forward<T>(NormKind::Layer, x.data(), nullptr, {}, gamma.data(), beta.data(), 1e-5, rows,
                    cols, nullptr, y.data(), mean.data(), rstd.data());
    norm_forward<T>(NormKind::Layer, x.data() + at * cols, nullptr, {}, gamma.data(), beta.data(),
                    1e-5, 1, cols, nullptr, one.data(), m.data(), s.data());
    for (int64_t c = 0; c < cols; ++c)
      ASSERT_EQ(value_of(y[at * cols + c]), value_of(one[c])) << set;
    const auto backward = [&](std::vector<T>& to, std::vector<A>& sums) {
      norm_backward<T>(NormKind::Layer, dy.data(), nullptr, x.data(), mean.data(), rstd.data(),
                       gamma.data(), {}, rows, cols, to.data(), to.data(), sums.data(), nullptr);
    };
    const int before = threads();
    set_threads(1);
    backward(dh, dgamma);
    set_threads(3);
    backward(dh_again, dgamma_again);
    set_threads(before);
    EXPECT_EQ(dgamma, dgamma_again);
    for (size_t i = 0; i < dh.size(); ++i) ASSERT_EQ(value_of(dh[i]), value_of(dh_again[i]));
  });
}

}  // namespace norm_test
}  // namespace attune::kernels
