#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace {

constexpr double kRate = 0.01, kGradientScale = 0.25;

/// One tensor of the reference: plain double arithmetic after algorithm 2 of arXiv 1711.05101.
struct Reference {
  std::vector<double> p, m, v;
  double rate = 1, decay = 0;
  int64_t steps = 0;

  void step(const std::vector<double>& gradient, const AdamWOptions& o) {
    ++steps;
    for (size_t i = 0; i < p.size(); ++i) {
      const double g = gradient[i] * kGradientScale, lr = kRate * rate;
      p[i] -= lr * decay * p[i];
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
      const double mean = m[i] / (1 - std::pow(o.beta1, static_cast<double>(steps)));
      const double square = v[i] / (1 - std::pow(o.beta2, static_cast<double>(steps)));
      p[i] -= lr * mean / (std::sqrt(square) + o.eps);
    }
  }
};

std::vector<double> draw(uint64_t key, int64_t count) {
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(Stream64(key).normal(static_cast<uint64_t>(i)));
  return values;
}

Param param(const std::string& name, const std::vector<double>& values, at::ScalarType type) {
  Param result;
  result.name = name;
  result.value = as_leaf(at::tensor(values, at::kDouble).to(type).clone());
  return result;
}

void check(at::ScalarType type, double tolerance) {
  const AdamWOptions options{0.9, 0.98, 1e-8, 0.1};
  const std::vector<int64_t> sizes{37, 8, 1, 100};
  std::vector<Param> params;
  std::vector<Reference> references;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::vector<double> start = draw(i, sizes[i]);
    params.push_back(param(std::to_string(i), start, type));
    references.push_back(
        {start, std::vector<double>(start.size()), std::vector<double>(start.size()), 1, 0.1, 0});
  }
  params[1].decays = false;  // a bias: none
  references[1].decay = 0;
  params[2].decays = false;  // says so itself
  params[2].weight_decay = 0.5;
  references[2].decay = 0.5;
  params[3].lr_scale = 3;
  references[3].rate = 3;
  AdamW optimizer(options);
  for (uint64_t step = 0; step < 20; ++step) {
    for (size_t i = 0; i < params.size(); ++i) {
      if (i == 0 && step % 3 == 1) {  // no gradient: left alone, its own step count too
        params[i].value.mutable_grad() = Tensor();
        continue;
      }
      const std::vector<double> gradient = draw(100 + 10 * step + i, sizes[i]);
      params[i].value.mutable_grad() = at::tensor(gradient, at::kDouble).to(type);
      references[i].step(gradient, options);
    }
    optimizer.step(params, kRate, kGradientScale);
  }
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor expected = at::tensor(references[i].p, at::kDouble);
    EXPECT_LE((params[i].value.detach().to(at::kDouble) - expected).abs().max().item<double>(),
              tolerance)
        << i;
  }
}

TEST(AdamW, EqualsTheNaiveReferenceInDouble) {
  check(at::kDouble, 1e-13);
}
TEST(AdamW, EqualsTheNaiveReferenceInSinglePrecision) {
  check(at::kFloat, 2e-6);
}

TEST(AdamW, AMaskOrARateOfZeroLeavesElementsUntouched) {
  std::vector<Param> params{param("masked", draw(1, 6), at::kDouble),
                            param("still", draw(2, 6), at::kDouble)};
  params[0].mask = at::zeros({6}, at::kByte);
  params[0].mask[2] = 1;
  params[1].lr_scale = 0;
  const Tensor masked = params[0].value.detach().clone(), still = params[1].value.detach().clone();
  for (Param& entry : params) entry.value.mutable_grad() = at::ones({6}, at::kDouble);
  AdamW({}).step(params, 0.1, 1);
  for (int64_t i = 0; i < 6; ++i)
    EXPECT_EQ(params[0].value[i].item<double>() == masked[i].item<double>(), i != 2) << i;
  EXPECT_TRUE(at::equal(params[1].value.detach(), still));
}

TEST(AdamW, StateGoesOnWhereItStopped) {
  const std::function<std::vector<Param>()> start = [] {
    return std::vector<Param>{param("a", draw(1, 9), at::kFloat),
                              param("b", draw(2, 5), at::kFloat)};
  };
  const std::function<void(std::vector<Param>&, AdamW&, uint64_t)> step =
      [](std::vector<Param>& params, AdamW& optimizer, uint64_t key) {
        for (Param& entry : params)
          entry.value.mutable_grad() =
              at::tensor(draw(key, entry.value.numel()), at::kDouble).to(at::kFloat);
        optimizer.step(params, 0.01, 1);
      };
  std::vector<Param> whole = start(), halves = start();
  AdamW one({}), first({}), second({});
  for (uint64_t key = 0; key < 6; ++key) step(whole, one, key);
  for (uint64_t key = 0; key < 3; ++key) step(halves, first, key);
  const std::vector<std::pair<std::string, Tensor>> saved = first.state(halves),
                                                    fresh = second.state(halves);
  ASSERT_EQ(saved.size(), 6u);
  for (size_t i = 0; i < saved.size(); ++i) {
    EXPECT_EQ(saved[i].first, fresh[i].first);
    fresh[i].second.copy_(saved[i].second);
  }
  for (uint64_t key = 3; key < 6; ++key) step(halves, second, key);
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_TRUE(at::equal(whole[i].value.detach(), halves[i].value.detach())) << i;
}

TEST(GradientNorm, IsTheRootOfTheSumOfSquares) {
  std::vector<Param> params{param("a", {1, 2}, at::kFloat), param("b", {1}, at::kDouble),
                            param("c", {1}, at::kFloat)};
  params[0].value.mutable_grad() = at::tensor({1.0, 2.0}, at::kFloat);
  params[1].value.mutable_grad() = at::tensor({2.0}, at::kDouble);
  EXPECT_NEAR(gradient_norm(params), 3, 1e-12);
  clear_gradients(params);
  EXPECT_EQ(gradient_norm(params), 0);
  EXPECT_FALSE(params[0].value.grad().defined());
}

}  // namespace
}  // namespace attune
