#include "core/bottleneck.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "core/tuner.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {
namespace bottleneck_test {

using kernels::Activation;

Tensor draw(const std::string& name, const std::vector<int64_t>& shape) {
  const Stream64 stream = Stream64(3, "bottleneck").with(name);
  Tensor values = at::empty(shape, at::kDouble);
  double* out = static_cast<double*>(values.data_ptr());
  for (int64_t i = 0; i < values.numel(); ++i) out[i] = stream.normal(static_cast<uint64_t>(i));
  return values;
}

double value(Activation f, double x) {
  switch (f) {
    case Activation::Relu:
      return x > 0 ? x : 0;
    case Activation::Gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::GeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::QuickGelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::Silu:
      return x / (1 + std::exp(-x));
    case Activation::Tanh:
      return std::tanh(x);
    case Activation::Sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::Identity:
      break;
  }
  return x;
}

double at2(const Tensor& x, int64_t i, int64_t j) {
  return x.detach().index({i, j}).item<double>();
}
double at1(const Tensor& x, int64_t i) {
  return x.defined() ? x.detach().index({i}).item<double>() : 0.0;
}

/// The definition as loops over rows, inner and outer features.
Tensor naive(const Tensor& x, const Tensor& base, const Bottleneck& w) {
  const int64_t rows = x.size(0), in = x.size(1), size = w.down.size(0), out = w.up.size(0);
  const double factor = w.scale * (w.gain.defined() ? at1(w.gain, 0) : 1.0);
  Tensor y = at::zeros({rows, out}, at::kDouble);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < out; ++o) {
      double sum = at1(w.up_bias, o);
      for (int64_t k = 0; k < size; ++k) {
        double inner = at1(w.down_bias, k);
        for (int64_t i = 0; i < in; ++i) inner += at2(w.down, k, i) * at2(x, r, i);
        sum += at2(w.up, o, k) * value(w.activation, inner);
      }
      y.index({r, o}).fill_(factor * sum + (base.defined() ? at2(base, r, o) : 0));
    }
  return y;
}

struct Case {
  Tensor x, base;
  Bottleneck w;
};
/// A bottleneck 4 -> 3 -> out with everything trained.
Case full_case(Activation f, int64_t out = 4, bool residual = true, int64_t rows = 5) {
  Case c;
  c.x = as_leaf(draw("x", {rows, 4}));
  c.base = residual ? c.x : as_leaf(draw("base", {rows, out}));
  c.w.down = as_leaf(draw("down", {3, 4}));
  c.w.down_bias = as_leaf(draw("down_bias", {3}));
  c.w.up = as_leaf(draw("up", {out, 3}));
  c.w.up_bias = as_leaf(draw("up_bias", {out}));
  c.w.gain = as_leaf(draw("gain", {1}));
  c.w.activation = f;
  c.w.scale = 1.7;
  return c;
}
double difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

/// Every gradient of sum(y * weights) against central differences.
void check_gradients(const Case& c, const DropSite& drop = {}) {
  std::vector<Tensor> leaves{c.x, c.w.down, c.w.down_bias, c.w.up, c.w.up_bias, c.w.gain};
  if (!c.base.is_same(c.x)) leaves.push_back(c.base);
  const Tensor weights = draw("loss", {c.x.size(0), c.w.up.size(0)});
  const auto loss = [&] { return (bottleneck(c.x, c.base, c.w, drop) * weights).sum(); };
  backward(loss());
  at::NoGradGuard no_grad;
  for (const Tensor& leaf : leaves) {
    ASSERT_TRUE(leaf.grad().defined());
    double* data = static_cast<double*>(leaf.data_ptr());
    const Tensor gradient = leaf.grad().contiguous();
    const double* g = static_cast<const double*>(gradient.data_ptr());
    for (int64_t i = 0; i < leaf.numel(); ++i) {
      const double before = data[i], step = 1e-6;
      data[i] = before + step;
      const double up = loss().item<double>();
      data[i] = before - step;
      const double down = loss().item<double>();
      data[i] = before;
      EXPECT_NEAR(g[i], (up - down) / (2 * step), 1e-7) << "element " << i;
    }
  }
}

const std::vector<std::string> kNames = split(kActivationNames, '|');

TEST(Bottleneck, IsTheSumOfItsDefinitionForEveryActivation) {
  for (const std::string& name : kNames) {
    const Case c = full_case(activation_named(name));
    EXPECT_LE(difference(bottleneck(c.x, c.base, c.w), naive(c.x, c.base, c.w)), 1e-13) << name;
  }
}

TEST(Bottleneck, BiasesGainAndBaseMayBeLeftOut) {
  Case c = full_case(Activation::Silu, 6, false);
  EXPECT_LE(difference(bottleneck(c.x, c.base, c.w), naive(c.x, c.base, c.w)), 1e-13);
  c.w.gain = c.w.up_bias = Tensor();
  EXPECT_LE(difference(bottleneck(c.x, c.base, c.w), naive(c.x, c.base, c.w)), 1e-13);
  c.w.down_bias = Tensor();
  EXPECT_LE(difference(bottleneck(c.x, Tensor(), c.w), naive(c.x, Tensor(), c.w)), 1e-13);
}

TEST(Bottleneck, GradientsAreThoseOfCentralDifferencesForEveryActivation) {
  for (const std::string& name : kNames) {
    SCOPED_TRACE(name);
    check_gradients(full_case(activation_named(name)));
  }
}

TEST(Bottleneck, GradientsReachASeparateBase) {
  check_gradients(full_case(Activation::Gelu, 6, false));
}

TEST(Bottleneck, DropoutActsOnTheInnerRowsByTheirKeys) {
  for (const Activation f : {Activation::Gelu, Activation::Identity}) {
    const Case c = full_case(f);
    const DropSite drop{0.4, int64_tensor({11, 12, 13, 14, 15}), 7};
    const Tensor inner = activate(f, attune::matmul(c.x, c.w.down, false, true) + c.w.down_bias);
    const Tensor plain = (attune::matmul(dropout(inner, drop), c.w.up, false, true) + c.w.up_bias) *
                             (c.w.gain * c.w.scale) +
                         c.x;
    EXPECT_LE(difference(bottleneck(c.x, c.base, c.w, drop), plain), 1e-13);
    EXPECT_GT(difference(bottleneck(c.x, c.base, c.w), plain), 1e-3);
    check_gradients(c, drop);
  }
}

TEST(Bottleneck, OnlyWhatWantsAGradientGetsOne) {
  Case c = full_case(Activation::Relu);
  c.w.down = c.w.down.detach();
  c.w.down_bias = c.w.down_bias.detach();
  c.x = c.x.detach();
  c.base = c.x;
  c.w.up_bias = c.w.up_bias.detach();
  c.w.gain = c.w.gain.detach();
  backward(bottleneck(c.x, c.base, c.w).sum());
  EXPECT_TRUE(c.w.up.grad().defined());
  EXPECT_FALSE(c.w.down.grad().defined());
  EXPECT_FALSE(c.w.gain.grad().defined());
  EXPECT_FALSE(c.x.grad().defined());
  c.w.up = c.w.up.detach();
  EXPECT_FALSE(bottleneck(c.x, c.base, c.w).requires_grad());
}

TEST(Bottleneck, FloatAndBf16AgreeWithDouble) {
  const Case c = full_case(Activation::Gelu);
  const Tensor exact = naive(c.x, c.base, c.w);
  for (const std::pair<at::ScalarType, double>& type :
       {std::pair<at::ScalarType, double>{at::kFloat, 1e-5}, {at::kBFloat16, 0.1}}) {
    const auto leaf = [](const Tensor& x, at::ScalarType to) {
      return as_leaf(x.detach().to(to).clone());
    };
    Bottleneck w = c.w;
    for (Tensor* part : {&w.down, &w.down_bias, &w.up, &w.up_bias, &w.gain})
      *part = leaf(*part, at::kFloat);
    const Tensor x = leaf(c.x, type.first);
    const Tensor y = bottleneck(x, x, w);
    EXPECT_EQ(y.scalar_type(), type.first);
    EXPECT_LE(difference(y, exact), type.second);
    backward(y.to(at::kFloat).sum());
    EXPECT_EQ(w.down.grad().scalar_type(), at::kFloat);
    EXPECT_EQ(x.grad().scalar_type(), type.first);
    Case reference = full_case(Activation::Gelu);
    backward(bottleneck(reference.x, reference.base, reference.w).sum());
    EXPECT_LE(difference(w.up.grad(), reference.w.up.grad()), 5 * type.second);
    EXPECT_LE(difference(w.down.grad(), reference.w.down.grad()), 5 * type.second);
  }
}

TEST(Bottleneck, NoRowsGiveNoRows) {
  const Case c = full_case(Activation::Relu, 4, true, 0);
  const Tensor y = bottleneck(c.x, c.base, c.w);
  EXPECT_EQ(y.size(0), 0);
  backward(y.sum());
  EXPECT_EQ(c.w.up.grad().abs().max().item<double>(), 0);
}

TEST(Bottleneck, SizesThatDoNotFitAreRefused) {
  const auto text = [](const Case& c) {
    try {
      bottleneck(c.x, c.base, c.w);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::BadInput);
      return std::string(error.what());
    }
    return std::string();
  };
  Case c = full_case(Activation::Relu);
  c.w.up = draw("up", {4, 2});
  EXPECT_EQ(text(c),
            "a bottleneck of rows [5, 4] by down [3, 4] and up [4, 2] added to rows [5, 4]: the "
            "sizes do not fit; expected [rows, in], [size, in], [out, size] and [rows, out]");
  c = full_case(Activation::Relu);
  c.w.up = draw("up", {6, 3});
  EXPECT_NE(text(c).find("up [6, 3] added to rows [5, 4]"), std::string::npos);
}

TEST(ActivationNamed, AnUnknownNameIsOurBug) {
  EXPECT_EQ(kNames.size(), 8u);
  try {
    activation_named("swish");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Internal);
    EXPECT_NE(std::string(error.what()).find("no activation \"swish\"; expected one of relu|"),
              std::string::npos);
  }
}

TEST(LayerNorm, IsThatOfItsDefinition) {
  const Tensor x = draw("x", {3, 4}), residual = draw("residual", {3, 4}),
               gamma = draw("gamma", {4}), beta = draw("beta", {4});
  const Tensor y = layer_norm(x, residual, gamma, beta, 1e-5);
  for (int64_t r = 0; r < 3; ++r) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < 4; ++i) mean += (at2(x, r, i) + at2(residual, r, i)) / 4;
    for (int64_t i = 0; i < 4; ++i)
      variance += std::pow(at2(x, r, i) + at2(residual, r, i) - mean, 2) / 4;
    for (int64_t i = 0; i < 4; ++i)
      EXPECT_NEAR(
          at2(y, r, i),
          (at2(x, r, i) + at2(residual, r, i) - mean) / std::sqrt(variance + 1e-5) * at1(gamma, i) +
              at1(beta, i),
          1e-12);
  }
}

TEST(DropOf, IsOffUnlessTraining) {
  const RowIndex rows = RowIndex::from_lengths({2});
  const std::map<std::string, Tensor> reads;
  Pass pass;
  const Tensor keys = int64_tensor({1, 2});
  EXPECT_FALSE(drop_of(View{Tensor(), rows, reads, pass, keys, 4}, 0.5).kernel().on());
  pass.training = true;
  const DropSite drop = drop_of(View{Tensor(), rows, reads, pass, keys, 4}, 0.5);
  EXPECT_TRUE(drop.kernel().on());
  EXPECT_EQ(drop.site, 4u);
  EXPECT_FALSE(drop_of(View{Tensor(), rows, reads, pass, keys, 4}, 0).kernel().on());
}

}  // namespace bottleneck_test
}  // namespace attune
