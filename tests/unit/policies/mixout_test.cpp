#include <algorithm>
#include <cmath>

#include "support/toy_run.h"
#include "tensor/autograd.h"

namespace attune {
namespace mixout_test {

const ToyRun::Named kFull{{"full", Json::object()}};
const std::string kQ = "default/0.full/enc.0.self.q/weight";

/// A model whose weights have moved from the base, and the policy's steps by hand.
class Mixed {
 public:
  explicit Mixed(const Json& options)
      : run(kFull, {{"mixout", options}}), params(run.adaptation.trainable()) {
    at::NoGradGuard no_grad;
    for (Param& param : params) {
      param.value.add_(normal_tensor(Stream64(1, param.name).key(), param.value.sizes().vec(), 0.3,
                                     at::kDouble));
      mark_changed(param.value);
    }
    state.reset(new TrainState{run.model, run.adaptation, params, {}});
    state->pass.seed = 3;
    policy().begin(*state);
  }
  TrainingPolicy& policy() { return *run.policies[0]; }
  Param& q() {
    for (Param& param : params)
      if (param.name == kQ) return param;
    throw std::logic_error("no q");
  }
  Tensor base() { return run.base(kQ); }
  ToyRun run;
  std::vector<Param> params;
  std::unique_ptr<TrainState> state;
};

TEST(Mixout, EachWeightIsThePretrainedOneOrTheRescaledOwn) {
  Mixed mixed(Json{{"p", 0.7}});
  const Tensor w = mixed.q().value.detach().clone(), u = mixed.base();
  mixed.policy().before_step(*mixed.state);
  const Tensor got = mixed.q().value.detach();
  const Tensor from_u = (u - 0.7 * u) / 0.3, from_w = (w - 0.7 * u) / 0.3;  // M = 1 and M = 0
  const Tensor is_u = (got - from_u).abs().lt(1e-6), is_w = (got - from_w).abs().lt(1e-6);
  EXPECT_TRUE(is_u.logical_or(is_w).all().item<bool>());
  EXPECT_TRUE(is_u.any().item<bool>());
  EXPECT_TRUE(is_w.any().item<bool>());
}

TEST(Mixout, TheMeanOfTheMixedWeightsIsTheWeightAndTheShareIsP) {
  for (const char* granularity : {"element", "input"}) {
    Mixed mixed(Json{{"p", 0.6}, {"granularity", granularity}});
    const Tensor w = mixed.q().value.detach().clone(), u = mixed.base();
    const int64_t draws = 20000;
    Tensor sum = at::zeros_like(w), swapped = at::zeros_like(w);
    for (int64_t step = 0; step < draws; ++step) {
      mixed.state->pass.step = step;
      mixed.policy().before_step(*mixed.state);
      const Tensor got = mixed.q().value.detach();
      sum += got;
      swapped += got.eq(u).to(at::kDouble);
      for (Param& param : mixed.params) param.value.mutable_grad() = Tensor();
      mixed.policy().after_backward(*mixed.state);
    }
    const double n = static_cast<double>(draws);
    const Tensor spread = (w - u).abs() * std::sqrt(0.6 / 0.4 / n);
    EXPECT_TRUE((sum / n - w).abs().le(5 * spread + 1e-9).all().item<bool>()) << granularity;
    EXPECT_LE((swapped / n - 0.6).abs().max().item<double>(), 5 * std::sqrt(0.24 / n));
    EXPECT_TRUE(at::equal(mixed.q().value.detach(), w)) << "the weights come back bit for bit";
  }
}

TEST(Mixout, ByInputAWholeColumnIsMixed) {
  Mixed mixed(Json{{"p", 0.5}, {"granularity", "input"}});
  mixed.policy().before_step(*mixed.state);
  const Tensor pretrained = mixed.q().value.detach().eq(mixed.base());
  for (int64_t column = 0; column < 6; ++column) {
    const int64_t count = pretrained.select(1, column).sum().item<int64_t>();
    EXPECT_TRUE(count == 0 || count == 6) << count;
  }
}

TEST(Mixout, TheGradientIsThatOfFiniteDifferencesAtAFixedDraw) {
  Mixed mixed(Json{{"p", 0.5}});
  const Batch batch = toy_batch(0, 6);
  const auto loss = [&] {
    return mixed.run.model.forward(batch, {})
        .head->cross_entropy(batch.fields.at("labels"), Tensor(), 0)
        .sum;
  };
  // The loss as a function of the plain weights, at this step's draw.
  const auto mixed_loss = [&] {
    mixed.policy().before_step(*mixed.state);
    const Tensor value = loss();
    backward(value);
    mixed.policy().after_backward(*mixed.state);
    return value.item<double>();
  };
  mixed_loss();
  const Tensor gradient = mixed.q().value.grad().clone();
  Tensor value = mixed.q().value.detach();
  for (int64_t i = 0; i < 36; ++i) {
    double* element = static_cast<double*>(value.data_ptr()) + i;
    const double kept = *element, step = 1e-5;
    *element = kept + step;
    mark_changed(mixed.q().value);
    const double up = mixed_loss();
    *element = kept - step;
    mark_changed(mixed.q().value);
    const double down = mixed_loss();
    *element = kept;
    mark_changed(mixed.q().value);
    const double expected = (up - down) / (2 * step);
    EXPECT_NEAR(gradient.reshape({-1})[i].item<double>(), expected, 1e-6 * (1 + std::abs(expected)))
        << i;
  }
}

TEST(Mixout, OnlyChosenProjectionsAreMixed) {
  Mixed mixed(Json{{"p", 0.9}, {"sites", {"*.self.q", "*.norm", "head.*"}}});
  Snapshot before;
  for (const Param& param : mixed.params) before[param.name] = param.value.detach().clone();
  mixed.policy().before_step(*mixed.state);
  for (const Param& param : mixed.params)
    EXPECT_EQ(!at::equal(param.value.detach(), before.at(param.name)),
              ends_with(param.name, "self.q/weight"))
        << param.name;
}

TEST(Mixout, AGlobThatMatchesNothingIsAReadableError) {
  ToyRun run(kFull, {{"mixout", Json{{"sites", {"*.zz"}}}}});
  const std::string text = error_text(ErrorCode::BadInput, [&] { run.train(); });
  EXPECT_NE(text.find("\"*.zz\" matches nothing"), std::string::npos) << text;
}

TEST(Mixout, WithoutATrainedProjectionItIsRefused) {
  const std::string refusal =
      "mixout: no projection of the base model trains among the chosen sites, so there is none to "
      "mix with its pre-trained values; add a method that trains them, such as full";
  ToyRun lora({{"lora", Json{{"rank", 1}}}}, {{"mixout", Json::object()}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { lora.train(); }), refusal);
  ToyRun norms(kFull, {{"mixout", Json{{"sites", {"*.norm"}}}}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { norms.train(); }), refusal);
}

}  // namespace mixout_test
}  // namespace attune
