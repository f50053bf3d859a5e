// The step of the training loop: calibration, hooks of methods, masks, frozen tensors, exact
// resume.
#include "train/trainer.h"

#include "support/toy_run.h"
#include "tensor/autograd.h"

namespace attune {
namespace trainer_test {

/// What a method of these tests sees and does.
struct Script {
  std::vector<std::string> calls;
  std::function<void(Attachment&)> attach;
  std::function<void(const Calibration&)> calibrate = [](const Calibration&) {};
  std::function<void(const Pass&)> after_backward = [](const Pass&) {}, after_step = after_backward;
};

class Scripted final : public Tuner {
 public:
  explicit Scripted(Script& script) : script_(script) {}
  void attach(Attachment& attachment) override { script_.attach(attachment); }
  void calibrate(const Calibration& calibration) override {
    script_.calls.push_back("calibrate");
    script_.calibrate(calibration);
  }
  void after_backward(const Pass& pass) override {
    script_.calls.push_back("after_backward " + std::to_string(pass.step));
    script_.after_backward(pass);
  }
  void after_step(const Pass& pass) override {
    script_.calls.push_back("after_step " + std::to_string(pass.step));
    script_.after_step(pass);
  }

 private:
  Script& script_;
};

Registry<Tuner> registry_of(Script& script) {
  Registry<Tuner> registry = methods();
  Entry<Tuner> entry;
  entry.name = "scripted";
  entry.make = [&script](const Options&) { return std::make_unique<Scripted>(script); };
  registry.add(std::move(entry));
  return registry;
}

/// Trains the whole of two projections, with masks.
void thaw_two(Attachment& attachment, const Tensor& q_mask, const Tensor& v_mask) {
  attachment.thaw(attachment.sites("enc.0.self.q")[0], {1, -1, q_mask}, Part::Weight);
  attachment.thaw(attachment.sites("enc.0.self.v")[0], {1, -1, v_mask}, Part::Weight);
}

const std::string kQ = "default/0.scripted/enc.0.self.q/weight";
const std::string kV = "default/0.scripted/enc.0.self.v/weight";

TEST(Trainer, CalibratesOnceBeforeTheFirstStepAndCallsMethodsInEveryStep) {
  Script script;
  script.attach = [](Attachment& attachment) { thaw_two(attachment, {}, {}); };
  ToyRun run(registry_of(script), {{"scripted", Json::object()}});
  run.config.steps = 2;
  run.train();
  EXPECT_EQ(script.calls, (std::vector<std::string>{"calibrate", "after_backward 0", "after_step 0",
                                                    "after_backward 1", "after_step 1"}));
}

TEST(Trainer, CalibrationGivesGradientsOfTheSummedLossAndChangesNothing) {
  Script script;
  script.attach = [](Attachment& attachment) { thaw_two(attachment, {}, {}); };
  ToyRun run(registry_of(script), {{"scripted", Json::object()}});
  ToyRun plain(registry_of(script), {{"scripted", Json::object()}});
  Tensor sum;
  double count = 0;
  int64_t calls = 0;
  script.calibrate = [&](const Calibration& calibration) {
    EXPECT_EQ(calibration.seed, 3u);
    const Snapshot before = run.trained();
    calibration.gradients(100, [&](double labelled) {
      const Tensor gradient = run.adaptation.trainable()[0].value.grad();
      ASSERT_TRUE(gradient.defined());
      sum = sum.defined() ? sum + gradient : gradient.clone();
      count += labelled;
      ++calls;
    });
    EXPECT_TRUE(same(run.trained(), before));
    EXPECT_FALSE(run.adaptation.trainable()[0].value.grad().defined());
  };
  run.config.steps = 1;
  run.train();
  EXPECT_EQ(calls, 4) << "one pass over 12 examples in batches of 3, however many were asked for";
  EXPECT_EQ(count, 12);
  // The reference: all twelve in one batch, from the base.
  ToyRun reference(registry_of(script), {{"scripted", Json::object()}});
  backward(reference.model.forward(toy_batch(0, 12), {})
               .head->cross_entropy(toy_batch(0, 12).fields.at("labels"), Tensor(), 0)
               .sum);
  EXPECT_LE((sum - reference.adaptation.trainable()[0].value.grad()).abs().max().item<double>(),
            1e-12);
  script.calibrate = [](const Calibration&) {};
  plain.config.steps = 1;
  plain.train();
  EXPECT_TRUE(same(run.trained(), plain.trained())) << "the training sampler must not have moved";
}

TEST(Trainer, CalibrationIsAFunctionOfTheSeed) {
  const auto gradients = [](uint64_t seed) {
    Script script;
    script.attach = [](Attachment& attachment) { thaw_two(attachment, {}, {}); };
    ToyRun run(registry_of(script), {{"scripted", Json::object()}});
    Snapshot seen;
    script.calibrate = [&](const Calibration& calibration) {
      calibration.gradients(
          1, [&](double) { seen["first"] = run.adaptation.trainable()[0].value.grad().clone(); });
    };
    run.config.seed = seed;
    run.config.steps = 1;
    run.train();
    return seen;
  };
  EXPECT_TRUE(same(gradients(3), gradients(3)));
  EXPECT_FALSE(same(gradients(3), gradients(4)));
}

TEST(Trainer, ANonFiniteLossInCalibrationNamesTheBatch) {
  Script script;
  script.attach = [](Attachment& attachment) { thaw_two(attachment, {}, {}); };
  script.calibrate = [](const Calibration& calibration) {
    calibration.gradients(1, [](double) {});
  };
  ToyRun run(registry_of(script), {{"scripted", Json::object()}});
  run.model.slot(run.model.site("head.proj")).bias.fill_(std::nan(""));
  EXPECT_EQ(error_text(ErrorCode::Diverged, [&] { run.train(); }),
            "calibration: the loss of batch 1 is not a finite number before training began; look "
            "at the data and at the model's weights");
}

TEST(Trainer, WhatAMaskHoldsBackNeverMovesNotEvenByWeightDecay) {
  Script script;
  const Tensor elements = at::zeros({6, 6}, at::kByte), rows = at::zeros({6, 1}, at::kBool);
  elements[2][3] = 1;
  rows[4][0] = true;
  script.attach = [&](Attachment& attachment) { thaw_two(attachment, elements, rows); };
  ToyRun run(registry_of(script), {{"scripted", Json::object()}});
  run.config.accumulate = 2;
  run.train();
  const Tensor q = run.trained().at(kQ).ne(run.base(kQ)), v = run.trained().at(kV).ne(run.base(kV));
  EXPECT_TRUE(at::equal(q, elements.ne(0)));
  EXPECT_TRUE(at::equal(v, rows.expand({6, 6})));
}

TEST(Trainer, AMaskMayBeRefilledInPlaceBetweenSteps) {
  Script script;
  const Tensor mask = at::zeros({1}, at::kByte);
  script.attach = [&](Attachment& attachment) { thaw_two(attachment, mask, mask); };
  ToyRun run(registry_of(script), {{"scripted", Json::object()}});
  std::vector<bool> moved;
  Tensor last = run.base(kQ);
  script.after_step = [&](const Pass& pass) {
    const Tensor now = run.trained().at(kQ);
    moved.push_back(!at::equal(now, last));
    last = now;
    mask.fill_(pass.step == 1 ? 1 : 0);  // the third step alone trains
  };
  run.config.steps = 4;
  run.train();
  EXPECT_EQ(moved, (std::vector<bool>{false, false, true, false}));
}

TEST(Trainer, MasksOfTwoMethodsThatTrainOneTensorUniteAndStayLive) {
  Script first, second;
  const Tensor a = at::zeros({6, 1}, at::kBool), b = at::zeros({6, 6}, at::kByte);
  a[1][0] = true;
  b[3][3] = 1;
  first.attach = [&](Attachment& attachment) {
    attachment.thaw(attachment.sites("enc.0.self.q")[0], {0.5, -1, a}, Part::Weight);
  };
  second.attach = [&](Attachment& attachment) {
    attachment.thaw(attachment.sites("enc.0.self.q")[0], {1, -1, b}, Part::Weight);
  };
  Registry<Tuner> registry = registry_of(first);
  Entry<Tuner> other;
  other.name = "other";
  other.make = [&](const Options&) { return std::make_unique<Scripted>(second); };
  registry.add(std::move(other));
  ToyRun run(std::move(registry), {{"scripted", Json::object()}, {"other", Json::object()}});
  const std::vector<Param> params = run.adaptation.trainable();
  ASSERT_EQ(params.size(), 1u);
  EXPECT_EQ(params[0].lr_scale, 0.5);
  Tensor after_first;
  first.after_step = [&](const Pass& pass) {
    if (pass.step != 0) return;
    after_first = run.trained().at(kQ);
    b[5][0] = 1;  // read from the next step on
  };
  run.config.steps = 3;
  run.train();
  Tensor expected = at::zeros({6, 6}, at::kBool);
  expected[1].fill_(true);
  expected[3][3] = true;
  EXPECT_TRUE(at::equal(after_first.ne(run.base(kQ)), expected));
  expected[5][0] = true;
  EXPECT_TRUE(at::equal(run.trained().at(kQ).ne(run.base(kQ)), expected));
}

TEST(Trainer, OneMethodWithoutAMaskTrainsTheWholeTensor) {
  Script script;
  script.attach = [&](Attachment& attachment) {
    attachment.thaw(attachment.sites("enc.0.self.q")[0], {1, -1, at::zeros({1}, at::kByte)},
                    Part::Weight);
  };
  ToyRun run(registry_of(script),
             {{"scripted", Json::object()}, {"full", Json{{"sites", {"enc.0.self.q"}}}}});
  EXPECT_FALSE(run.adaptation.trainable()[0].mask.defined());
}

/// Freezes one tensor at the steps given, and looks at its gradient.
class Freezer final : public TrainingPolicy {
 public:
  Freezer(std::string name, std::vector<bool>& gradients)
      : name_(std::move(name)), gradients_(gradients) {}
  void before_step(TrainState& state) override {
    for (Param& param : state.params)
      if (param.name == name_) param.frozen = state.pass.step % 2 == 0;
  }
  void after_backward(TrainState& state) override {
    for (const Param& param : state.params)
      if (param.name == name_) gradients_.push_back(param.value.grad().defined());
  }

 private:
  std::string name_;
  std::vector<bool>& gradients_;
};

TEST(Trainer, AFrozenTensorHasNoGradientAndNoUpdate) {
  Script script;
  script.attach = [](Attachment& attachment) { thaw_two(attachment, {}, {}); };
  ToyRun run(registry_of(script), {{"scripted", Json::object()}});
  std::vector<bool> gradients, moved;
  run.policies.push_back(std::make_unique<Freezer>(kQ, gradients));
  Tensor last = run.base(kQ);
  script.after_step = [&](const Pass&) {
    const Tensor now = run.trained().at(kQ);
    moved.push_back(!at::equal(now, last));
    last = now;
  };
  run.config.steps = 4;
  run.train();
  EXPECT_EQ(gradients, (std::vector<bool>{false, true, false, true}));
  EXPECT_EQ(moved, gradients);
}

TEST(Trainer, ResumingWithMasksStatesAndFrozenTensorsEndsWithTheSameBits) {
  struct Setting {
    Script script;
    std::unique_ptr<ToyRun> run;
    Tensor mask, counter;
  };
  const auto make = [](Setting& s) {
    s.script.attach = [&s](Attachment& attachment) {
      const Site q = attachment.sites("enc.0.self.q")[0];
      s.mask = attachment.state(q, "mask", at::ones({6, 6}, at::kByte));
      s.counter = attachment.state(Site::shared(), "counter", at::zeros({1}, at::kLong));
      thaw_two(attachment, s.mask, {});
    };
    s.script.calibrate = [&s](const Calibration&) { s.mask[0].fill_(0); };
    s.script.after_step = [&s](const Pass&) {
      s.counter.add_(1);
      s.mask[s.counter.item<int64_t>() % 6].bitwise_xor_(1);
    };
    s.run = std::make_unique<ToyRun>(
        registry_of(s.script), ToyRun::Named{{"scripted", Json::object()}}, ToyRun::Named{}, 0.2);
  };
  std::vector<bool> ignored;
  Setting whole, rest;
  make(whole);
  make(rest);
  for (Setting* s : {&whole, &rest})
    s->run->policies.push_back(std::make_unique<Freezer>(kV, ignored));
  whole.run->train();
  const Trainer::Result result = rest.run->resume_from(*whole.run, 3);
  EXPECT_EQ(result.steps, 8);
  EXPECT_TRUE(same(whole.run->trained(), rest.run->trained()));
  EXPECT_TRUE(at::equal(whole.mask, rest.mask));
  EXPECT_EQ(rest.counter.item<int64_t>(), 8);
  EXPECT_EQ(rest.script.calls.front(), "after_backward 3") << "a resumed run does not calibrate";
}

/// Divides the run in two halves with an optimizer and a schedule of their own.
class TwoParts final : public TrainingPolicy {
 public:
  void before_step(TrainState& state) override {
    const bool second = state.pass.progress >= 0.5;
    state.part_begin = second ? 0.5 : 0;
    state.part_end = second ? 1 : 0.5;
    if (second && state.part_step == 0) {
      state.part_step = state.pass.step;
      state.restart = true;
      for (Param& param : state.params) {  // back to the start
        param.value.detach().copy_(start_.at(param.name));
        mark_changed(param.value);
      }
    }
  }
  void begin(TrainState& state) override {
    for (const Param& param : state.params) start_[param.name] = param.value.detach().clone();
  }

 private:
  Snapshot start_;
};

TEST(Trainer, APolicyMayDivideTheRunIntoPartsWithASchedulePerPart) {
  Script script;
  script.attach = [](Attachment& attachment) { thaw_two(attachment, {}, {}); };
  // Four epochs of the same data in a fixed order would differ by their order, so one batch holds
  // all of it.
  ToyRun halves(registry_of(script), {{"scripted", Json::object()}});
  ToyRun alone(registry_of(script), {{"scripted", Json::object()}});
  for (ToyRun* run : {&halves, &alone}) {
    run->config.batches.batch_size = 12;
    run->config.schedule.warmup_steps = 2;
  }
  halves.policies.push_back(std::make_unique<TwoParts>());
  halves.config.epochs = 10;
  alone.config.epochs = 5;
  halves.train();
  alone.train();
  for (const std::pair<const std::string, Tensor>& entry : alone.trained())
    EXPECT_LE((halves.trained().at(entry.first) - entry.second).abs().max().item<double>(), 1e-12);
}

}  // namespace trainer_test
}  // namespace attune
