// What a projection keeps for its backward pass when its input can be made again.
#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace kept_test {

Tensor draw(uint64_t key, int64_t rows, int64_t cols) {
  std::vector<double> values;
  for (int64_t i = 0; i < rows * cols; ++i)
    values.push_back(Stream64(key).normal(static_cast<uint64_t>(i)));
  return at::tensor(values, at::kDouble).reshape({rows, cols});
}

/// f of the activation functions that `layer` may see, and the same by torch alone.
struct Case {
  const char* name;
  std::function<Tensor(const Tensor&, const Tensor&)> ours, torch;
};
const std::vector<Case>& cases() {
  using kernels::Activation;
  static const std::vector<Case> kCases = {
      {"relu", [](const Tensor& a, const Tensor&) { return activation(Activation::Relu, a); },
       [](const Tensor& a, const Tensor&) { return a.relu(); }},
      {"gated silu",
       [](const Tensor& a, const Tensor& b) { return gated_activation(Activation::Silu, a, b); },
       [](const Tensor& a, const Tensor& b) { return at::silu(a) * b; }}};
  return kCases;
}

TEST(Kept, AnActivationIsMadeAgainAndNotHeld) {
  for (const Case& c : cases()) {
    const Tensor a = as_leaf(draw(1, 3, 4)), b = as_leaf(draw(2, 3, 4));
    const Tensor y = c.ours(a, b);
    const Kept kept(y, y.detach());
    EXPECT_NE(kept.get().data_ptr(), y.data_ptr()) << c.name;
    EXPECT_TRUE(at::equal(kept.get(), y.detach())) << c.name;
    const Kept plain(a, a.detach());
    EXPECT_EQ(plain.get().data_ptr(), a.data_ptr()) << "a leaf is held itself";
  }
}

TEST(Kept, ANormalisedRowIsMadeAgainToItsBitsOnceForAllThatReadIt) {
  const Tensor keys = at::arange(11, 14, at::kLong);
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat, at::kDouble})
    for (const bool residual : {false, true}) {
      const at::ScalarType master = type == at::kDouble ? at::kDouble : at::kFloat;
      const Tensor x = as_leaf(draw(1, 3, 40).to(type)), r = draw(2, 3, 40).to(type);
      NormArgs args;
      args.gamma = draw(3, 1, 40)[0].to(master);
      args.beta = draw(4, 1, 40)[0].to(master);
      const DropSite drop{residual ? 0.3 : 0.0, keys, 3};
      const Tensor y = add_norm(x, residual ? r : Tensor(), drop, args, false).y;
      const Kept one(y, y.detach()), other(y, y.detach());
      for (int pass = 0; pass < 2; ++pass) {  // a kept graph is gone through again
        const Tensor made = one.get();
        EXPECT_NE(made.data_ptr(), y.data_ptr());
        EXPECT_TRUE(at::equal(made, y.detach()));
        EXPECT_EQ(other.get().data_ptr(), made.data_ptr());
        EXPECT_EQ(made.use_count(), 1) << "held after the last has read it";
      }
    }
}

TEST(Kept, TheSecondOutputOfANodeIsHeldItself) {
  const Tensor x = as_leaf(draw(1, 3, 4)), r = draw(2, 3, 4);
  NormArgs args;
  args.gamma = at::ones({4}, at::kDouble);
  const Tensor sum = add_norm(x, r, {}, args, true).sum;
  EXPECT_TRUE(at::equal(Kept(sum, sum.detach()).get(), x.detach() + r));
}

TEST(Kept, GradientsBehindIt) {
  const Tensor keys = at::arange(11, 14, at::kLong);
  for (const Case& c : cases()) {
    const Tensor a = as_leaf(draw(1, 3, 4)), b = as_leaf(draw(2, 3, 4)), w = as_leaf(draw(3, 5, 4)),
                 down = as_leaf(draw(4, 2, 4)), up = as_leaf(draw(5, 5, 2));
    WeightSource weight;
    weight.dense = w;
    linear(c.ours(a, b), weight, Tensor(), {{down, up, 0.5, 0, 0}}, keys).square().sum().backward();
    std::vector<Tensor> found;
    for (const Tensor& leaf : {a, b, w, down, up}) {
      found.push_back(leaf.grad().defined() ? leaf.grad().clone() : Tensor());
      leaf.mutable_grad() = Tensor();
    }
    const Tensor h = c.torch(a, b);
    (h.matmul(w.t()) + 0.5 * h.matmul(down.t()).matmul(up.t())).square().sum().backward();
    size_t i = 0;
    for (const Tensor& leaf : {a, b, w, down, up}) {
      ASSERT_EQ(leaf.grad().defined(), found[i].defined());
      if (found[i].defined()) {
        EXPECT_LE((leaf.grad() - found[i]).abs().max().item<double>(), 1e-12) << c.name << " " << i;
      }
      ++i;
    }
  }
}

TEST(Kept, TheGradientOfATermsDropoutSeesTheSameElements) {
  const Tensor keys = at::arange(11, 14, at::kLong);
  const Tensor a = as_leaf(draw(1, 3, 4)), down = as_leaf(draw(4, 2, 4)),
               up = as_leaf(draw(5, 5, 2));
  const LowRankTerm term{down, up, 0.5, 0.4, 7};
  const auto loss = [&] {
    return low_rank(activation(kernels::Activation::Tanh, a), term, keys).square().sum();
  };
  loss().backward();
  const Tensor found = down.grad().clone();
  const double step = 1e-6;
  for (int64_t i = 0; i < down.numel(); ++i) {
    const at::NoGradGuard no_grad;
    double* value = static_cast<double*>(down.data_ptr()) + i;
    const double before = *value;
    *value = before + step;
    const double above = loss().item<double>();
    *value = before - step;
    const double below = loss().item<double>();
    *value = before;
    EXPECT_NEAR(found.flatten()[i].item<double>(), (above - below) / (2 * step), 1e-6) << i;
  }
}

// The gradient of y reaches both readers' sum as one tensor, which neither may write over.
TEST(Kept, AGradientThatTwoReceiveIsNotWrittenOver) {
  for (const Case& c : cases()) {
    const Tensor a = as_leaf(draw(1, 3, 4)), b = as_leaf(draw(2, 3, 4)), z = as_leaf(draw(3, 3, 4));
    const Tensor w = draw(4, 3, 4);
    ((c.ours(a, b) + z) * w).sum().backward();
    EXPECT_TRUE(at::equal(z.grad(), w)) << c.name;
    const Tensor found = a.grad().clone();
    a.mutable_grad() = b.mutable_grad() = Tensor();
    (c.torch(a, b) * w).sum().backward();
    EXPECT_LE((found - a.grad()).abs().max().item<double>(), 1e-12) << c.name;
  }
}

}  // namespace kept_test
}  // namespace attune
