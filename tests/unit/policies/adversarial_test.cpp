#include <cmath>

#include "policies/scoped_edit.h"
#include "support/toy_run.h"
#include "tensor/autograd.h"

namespace attune {
namespace adversarial_test {

const ToyRun::Named kFull{{"full", Json::object()}};

/// One call of the policy on a batch, and what its passes added at the embeddings.
class Attack {
 public:
  explicit Attack(const Json& options, double dropout = 0.2)
      : run(kFull, {{"adversarial", options}}, dropout), params(run.adaptation.trainable()) {
    batch = toy_batch(0, 5);
    batch.pass.training = true;
    batch.pass.seed = 3;
    batch.pass.step = 2;
    loss = call();
  }
  Loss call() {
    TrainState state{run.model, run.adaptation, params, {}};
    state.pass = batch.pass;
    return run.policies[0]->around(state, batch, [&](const Batch& given) {
      const SitePlan* plan = run.model.plan().at(run.model.site("enc.embed.out").id);
      Tensor delta;
      if (plan != nullptr && !plan->edits.empty())
        if (const Shift* shift = std::get_if<Shift>(plan->edits.back().edit))
          delta = shift->by.detach().clone();
      deltas.push_back(delta);
      flags.push_back(params[0].value.requires_grad());
      return run.objective->compute(run.model, given);
    });
  }
  /// The summed loss with a perturbation of our own.
  double loss_at(const Tensor& delta) {
    const ScopedEdit edit(run.model, run.model.site("enc.embed.out"), Shift{delta}, "test");
    return run.objective->compute(run.model, batch).total.sum.item<double>();
  }
  Tensor logits_at(const Tensor& delta) {
    const ScopedEdit edit(run.model, run.model.site("enc.embed.out"), Shift{delta}, "test");
    return run.model.forward(batch, {}).head->logits(Tensor()).detach();
  }
  Tensor gradient_at(const Tensor& at_delta) {
    const Tensor delta = as_leaf(at_delta.clone());
    const ScopedEdit edit(run.model, run.model.site("enc.embed.out"), Shift{delta}, "test");
    backward(run.objective->compute(run.model, batch).total.sum);
    return delta.grad();
  }
  Tensor zero() const { return at::zeros({rows(), ToyModel::kWidth}, at::kDouble); }
  int64_t rows() const { return batch.streams.at("enc").rows.rows(); }
  /// A sequence's part of a tensor of rows.
  Tensor of(const Tensor& x, int64_t b) const {
    const RowIndex& index = batch.streams.at("enc").rows;
    return x.slice(0, index.begin(b), index.end(b));
  }

  ToyRun run;
  std::vector<Param> params;
  Batch batch;
  std::vector<Tensor> deltas;  // of each pass; undefined: none
  std::vector<bool> flags;     // parameters ask for gradients, in each pass
  Loss loss;
};

TEST(Adversarial, FgmGoesAlongEachSequencesGradientToTheEdge) {
  Attack attack(Json{{"epsilon", 0.7}, {"weight", 0.5}});
  ASSERT_EQ(attack.deltas.size(), 3u);
  EXPECT_FALSE(attack.deltas[0].defined()) << "the clean pass";
  EXPECT_TRUE(at::equal(attack.deltas[1], attack.zero())) << "where the slope is taken";
  const Tensor gradient = attack.gradient_at(attack.zero());
  for (int64_t b = 0; b < 5; ++b) {
    const Tensor g = attack.of(gradient, b);
    double norm = 0;
    for (int64_t i = 0; i < g.numel(); ++i) norm += std::pow(g.reshape({-1})[i].item<double>(), 2);
    EXPECT_LE(
        (attack.of(attack.deltas[2], b) - 0.7 * g / std::sqrt(norm)).abs().max().item<double>(),
        1e-9);
  }
  EXPECT_NEAR(attack.loss.total.sum.item<double>(),
              attack.loss_at(attack.zero()) + 0.5 * attack.loss_at(attack.deltas[2]), 1e-12);
  EXPECT_GT(attack.loss_at(attack.deltas[2]), attack.loss_at(attack.zero()));
  EXPECT_EQ(attack.loss.total.count, 5);
}

TEST(Adversarial, TheSlopeIsThatOfFiniteDifferences) {
  Attack attack(Json::object());
  const Tensor gradient = attack.gradient_at(attack.zero());
  for (int64_t i = 0; i < attack.rows() * ToyModel::kWidth; i += 7) {
    Tensor up = attack.zero(), down = attack.zero();
    up.view({-1})[i] = 1e-5;
    down.view({-1})[i] = -1e-5;
    EXPECT_NEAR(gradient.reshape({-1})[i].item<double>(),
                (attack.loss_at(up) - attack.loss_at(down)) / 2e-5, 1e-7);
  }
}

TEST(Adversarial, PgdTakesStepsAndStaysInsideTheBall) {
  Attack attack(Json{{"mode", "pgd"}, {"epsilon", 0.5}, {"step_size", 0.3}, {"steps", 3}});
  ASSERT_EQ(attack.deltas.size(), 5u);
  Tensor delta = attack.zero();
  for (int step = 0; step < 3; ++step) {
    EXPECT_LE((attack.deltas[static_cast<size_t>(1 + step)] - delta).abs().max().item<double>(),
              1e-9);
    const Tensor gradient = attack.gradient_at(delta);
    Tensor next = attack.zero();
    for (int64_t b = 0; b < 5; ++b) {
      const Tensor g = attack.of(gradient, b);
      Tensor moved = attack.of(delta, b) + 0.3 * g / g.norm().item<double>();
      const double norm = moved.norm().item<double>();
      if (norm > 0.5) moved = moved * (0.5 / norm);
      attack.of(next, b).copy_(moved);
    }
    delta = next;
  }
  EXPECT_LE((attack.deltas[4] - delta).abs().max().item<double>(), 1e-9);
  EXPECT_LE(attack.of(attack.deltas[4], 0).norm().item<double>(), 0.5 + 1e-9);
  EXPECT_GT(attack.loss_at(attack.deltas[4]), attack.loss_at(attack.zero()));
}

TEST(Adversarial, SmartRaisesTheDivergenceOfThePredictionsWithinTheCube) {
  Attack attack(Json{
      {"mode", "smart"}, {"epsilon", 0.02}, {"noise", 0.01}, {"step_size", 0.01}, {"weight", 3}});
  ASSERT_EQ(attack.deltas.size(), 3u);
  const Tensor noise = attack.deltas[1], delta = attack.deltas[2];
  EXPECT_NEAR(noise.std().item<double>(), 0.01, 0.004);
  EXPECT_LE(delta.abs().max().item<double>(), 0.02);
  // One step of at most step_size an element, of exactly that at each row's steepest.
  const Tensor step = (delta - noise).abs();
  EXPECT_LE(step.max().item<double>(), 0.01 + 1e-12);
  const Tensor clean = attack.logits_at(attack.zero());
  const double before = divergence(clean, attack.logits_at(noise), attack.batch).item<double>();
  const double after = divergence(clean, attack.logits_at(delta), attack.batch).item<double>();
  EXPECT_GT(after, before);
  EXPECT_NEAR(attack.loss.total.sum.item<double>(), attack.loss_at(attack.zero()) + 3 * 5 * after,
              1e-12);
}

TEST(Adversarial, NoiseIsAFunctionOfTheExampleNotOfItsBatch) {
  Attack together(Json{{"mode", "smart"}, {"noise", 0.01}, {"epsilon", 1}});
  Attack alone(Json{{"mode", "smart"}, {"noise", 0.01}, {"epsilon", 1}});
  alone.batch = toy_batch(3, 1);
  alone.batch.pass = together.batch.pass;
  alone.deltas.clear();
  alone.call();
  EXPECT_TRUE(at::equal(together.of(together.deltas[1], 3), alone.deltas[1]));
}

TEST(Adversarial, ParametersGetNoGradientFromTheAscentAndTheirFlagsComeBack) {
  Attack attack(Json{{"mode", "pgd"}});
  EXPECT_EQ(attack.flags, (std::vector<bool>{true, false, false, false, true}));
  for (const Param& param : attack.params) {
    EXPECT_TRUE(param.value.requires_grad()) << param.name;
    EXPECT_FALSE(param.value.grad().defined()) << param.name;
  }
  attack.params[0].frozen = true;
  attack.call();
  EXPECT_FALSE(attack.params[0].value.requires_grad()) << "what a policy froze stays frozen";
}

TEST(Adversarial, TheGradientIsThatOfBothLosses) {
  Attack attack(Json{{"epsilon", 0.3}, {"weight", 2}});
  backward(attack.loss.total.sum);
  std::map<std::string, Tensor> got;
  for (Param& param : attack.params) {
    got[param.name] = param.value.grad().clone();
    param.value.mutable_grad() = Tensor();
  }
  // The perturbation is held fixed, as in the papers.
  backward(attack.run.objective->compute(attack.run.model, attack.batch).total.sum);
  {
    const ScopedEdit edit(attack.run.model, attack.run.model.site("enc.embed.out"),
                          Shift{attack.deltas[2]}, "test");
    backward(attack.run.objective->compute(attack.run.model, attack.batch).total.sum * 2);
  }
  for (const Param& param : attack.params)
    EXPECT_LE((param.value.grad() - got.at(param.name)).abs().max().item<double>(), 1e-12)
        << param.name;
}

TEST(Adversarial, SmartMovesByItsStepUnlessTheBallIsSmaller) {
  // Step size 1e-3 by the largest slope, noise 1e-5, as published.
  Attack attack(Json{{"mode", "smart"}});
  const Tensor noise = attack.deltas[1], delta = attack.deltas[2];
  EXPECT_NEAR(noise.std().item<double>(), 1e-5, 4e-6);
  EXPECT_NEAR((delta - noise).abs().max().item<double>(), 1e-3, 5e-5);
  EXPECT_NEAR(
      Attack(Json{{"mode", "smart"}, {"step_size", 0.1}}).deltas[2].abs().max().item<double>(), 0.1,
      1e-12);
  EXPECT_LE(Attack(Json{{"mode", "smart"}, {"epsilon", 1e-4}}).deltas[2].abs().max().item<double>(),
            1e-4);
}

/// Says that it computes in bf16.
class NarrowModel final : public Model {
 public:
  NarrowModel() {
    numerics_.compute = kernels::DType::BF16;
    Site rows;
    rows.name = "enc.embed.out";
    rows.kind = SiteKind::Rows;
    add_site(rows);
  }
  Output forward(const Batch&, const Want&) override { return {}; }
};

TEST(Adversarial, SmartIsRefusedWhereItsPerturbationWouldBeRoundedAway) {
  NarrowModel model;
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(model, registry, 1);
  std::vector<Param> params;
  TrainState state{model, adaptation, params, {}};
  const auto begin = [&](const Json& options) {
    ToyRun run(kFull, {{"adversarial", options}});
    run.policies[0]->begin(state);
  };
  EXPECT_EQ(error_text(ErrorCode::BadInput,
                       [&] {
                         begin(Json{{"mode", "smart"}});
                       }),
            "adversarial: mode: smart begins with noise of 1e-05 and moves each value by at most "
            "0.001 (epsilon), which bf16 rounds away; give `precision: fp32`, or a noise and an "
            "epsilon of at least 0.0039");
  begin(Json{{"mode", "smart"}, {"noise", 0.01}, {"epsilon", 0.02}});
  begin(Json{{"mode", "smart"}, {"weight", 0}});
  begin(Json::object());
}

std::string error_of(const Json& options) {
  return error_text(ErrorCode::BadInput, [&] { ToyRun run(kFull, {{"adversarial", options}}); });
}

TEST(Adversarial, OptionsThatDoNotFitAreReadableErrors) {
  EXPECT_NE(error_of(Json{{"steps", 3}})
                .find("fgm takes one step to the edge of the ball; choose mode: pgd for 3 steps"),
            std::string::npos);
  EXPECT_NE(error_of(Json{{"mode", "smart"}, {"noise", 0}}).find("smart needs noise to begin with"),
            std::string::npos);
  ToyRun nowhere(kFull, {{"adversarial", Json{{"sites", {"*.self.q"}}}}});
  EXPECT_EQ(error_text(ErrorCode::Unsupported, [&] { nowhere.train(); }),
            "adversarial: no site of *.self.q holds rows in this model's pass; give sites such as "
            "\"*.embed.out\"");
}

}  // namespace adversarial_test
}  // namespace attune
