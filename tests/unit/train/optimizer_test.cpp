#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "support/temp_folder.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace optimizer_test {

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
  EXPECT_TRUE(second.state().empty());
  second.expect(halves, first.tensors());
  const std::vector<std::pair<std::string, Tensor>> saved = first.state(), fresh = second.state();
  ASSERT_EQ(saved.size(), 6u);
  for (size_t i = 0; i < saved.size(); ++i) {
    EXPECT_EQ(saved[i].first, fresh[i].first);
    fresh[i].second.copy_(saved[i].second);
  }
  for (uint64_t key = 3; key < 6; ++key) step(halves, second, key);
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_TRUE(at::equal(whole[i].value.detach(), halves[i].value.detach())) << i;
}

/// Elements as a row of a matrix, its columns, a single number or all of them.
TEST(AdamW, MasksOfRowsAndOfTheWholeBroadcast) {
  const Tensor rows = at::tensor({1.0, 0.0, 1.0}, at::kDouble).reshape({3, 1});
  const std::vector<Tensor> masks{rows.to(at::kByte), rows.ne(0), rows.expand({3, 4}).ne(0),
                                  at::ones({1}, at::kBool), at::zeros({1}, at::kByte)};
  const std::vector<int64_t> moved{8, 8, 8, 12, 0};
  for (size_t i = 0; i < masks.size(); ++i) {
    std::vector<Param> params{param("w", draw(1, 12), at::kDouble)};
    params[0].value = as_leaf(params[0].value.detach().reshape({3, 4}).clone());
    params[0].mask = masks[i];
    const Tensor before = params[0].value.detach().clone();
    AdamW optimizer({0.9, 0.999, 1e-8, 0.5});
    for (int step = 0; step < 3; ++step) {
      params[0].value.mutable_grad() = at::ones({3, 4}, at::kDouble);
      optimizer.step(params, 0.1, 1);
    }
    const Tensor changed = params[0].value.detach().ne(before);
    EXPECT_EQ(changed.sum().item<int64_t>(), moved[i]) << i;
    if (moved[i] == 8) {
      EXPECT_FALSE(changed[1].any().item<bool>()) << i;
    }
    // Moments of what is held back stay as they were made; a whole that is held back has none.
    if (moved[i] == 0) {
      EXPECT_TRUE(optimizer.state().empty());
    } else {
      EXPECT_EQ(optimizer.state()[0].second.ne(0).sum().item<int64_t>(), moved[i]) << i;
    }
  }
}

TEST(AdamW, AMaskIsReadAtEveryStepAndMomentsWaitExactly) {
  // Element 0 trains at even steps only: as if the odd steps' gradients had never been for it.
  std::vector<Param> params{param("w", {1, 1}, at::kDouble)};
  params[0].mask = at::ones({2}, at::kByte);
  AdamW optimizer({0.9, 0.98, 1e-8, 0.1});
  double p = 1, m = 0, v = 0;
  for (int64_t step = 1; step <= 6; ++step) {
    const double g = std::sin(static_cast<double>(step));
    params[0].mask[0] = step % 2 == 0;
    params[0].value.mutable_grad() = at::full({2}, g, at::kDouble);
    optimizer.step(params, 0.05, 1);
    if (step % 2 != 0) continue;
    p -= 0.05 * 0.1 * p;
    m = 0.9 * m + 0.1 * g;
    v = 0.98 * v + 0.02 * g * g;
    const double n = static_cast<double>(step);  // the bias correction counts the tensor's updates
    p -= 0.05 * (m / (1 - std::pow(0.9, n))) / (std::sqrt(v / (1 - std::pow(0.98, n))) + 1e-8);
  }
  EXPECT_NEAR(params[0].value.detach()[0].item<double>(), p, 1e-14);
}

TEST(AdamW, AFrozenTensorGetsNothing) {
  std::vector<Param> params{param("w", draw(1, 3), at::kDouble)};
  params[0].frozen = true;
  params[0].value.mutable_grad() = at::ones({3}, at::kDouble);
  const Tensor before = params[0].value.detach().clone();
  AdamW optimizer({0.9, 0.999, 1e-8, 0.5});
  optimizer.step(params, 0.1, 1);
  EXPECT_TRUE(at::equal(params[0].value.detach(), before));
  EXPECT_TRUE(optimizer.state().empty());
  EXPECT_EQ(gradient_norm(params), 0);
}

TEST(AdamW, ForgettingStartsAfresh) {
  std::vector<Param> kept{param("w", {1, 2}, at::kDouble)}, fresh{param("w", {1, 2}, at::kDouble)};
  AdamW first({}), second({});
  kept[0].value.mutable_grad() = at::tensor({3.0, -1.0}, at::kDouble);
  first.step(kept, 0.1, 1);
  first.forget();
  kept[0].value.detach().copy_(fresh[0].value.detach());
  for (int step = 0; step < 2; ++step)
    for (std::vector<Param>* params : {&kept, &fresh}) {
      (*params)[0].value.mutable_grad() = at::tensor({0.5, 2.0}, at::kDouble);
      (params == &kept ? first : second).step(*params, 0.1, 1);
    }
  EXPECT_TRUE(at::equal(kept[0].value.detach(), fresh[0].value.detach()));
}

TEST(AdamW, MomentsOfATensorThatIsNotTrainedAreRefused) {
  const std::vector<Param> params{param("w", {1}, at::kDouble)};
  const std::string text = error_text(ErrorCode::BadInput, [&] {
    AdamW({}).expect(params, {"w", "gone"});
  });
  EXPECT_EQ(text,
            "the checkpoint holds the optimizer's moments of gone, which this recipe does not "
            "train; resume with the recipe of the run");
}

TEST(AdamW, AMaskOfAnotherShapeIsOurBug) {
  std::vector<Param> params{param("w", {1, 2}, at::kDouble)};
  params[0].mask = at::ones({3}, at::kByte);
  params[0].value.mutable_grad() = at::ones({2}, at::kDouble);
  const std::string text = error_text(ErrorCode::Internal, [&] { AdamW({}).step(params, 0.1, 1); });
  EXPECT_NE(text.find("the mask of w has a shape that does not broadcast"), std::string::npos);
}

TEST(GradientNorm, LeavesOutWhatMasksHoldBack) {
  std::vector<Param> params{param("a", {1, 1, 1, 1}, at::kDouble)};
  params[0].value = as_leaf(params[0].value.detach().reshape({2, 2}).clone());
  params[0].value.mutable_grad() = at::tensor({3.0, 4.0, 5.0, 6.0}, at::kDouble).reshape({2, 2});
  params[0].mask = at::tensor({1, 0}, at::kLong).to(at::kByte).reshape({2, 1});
  EXPECT_NEAR(gradient_norm(params), 5, 1e-12);
  params[0].value.mutable_grad()[1][0] = std::nan("");
  EXPECT_NEAR(gradient_norm(params), 5, 1e-12) << "not even a NaN counts";
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

}  // namespace optimizer_test
}  // namespace attune
