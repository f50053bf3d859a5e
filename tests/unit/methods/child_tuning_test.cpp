#include <algorithm>
#include <cmath>

#include "core/attachment.h"
#include "method_bench.h"
#include "support/toy_run.h"

namespace attune {
namespace child_tuning_test {

/// A model with the method on it and gradients of one batch, before the mask of `step`.
struct Raised {
  explicit Raised(const Json& options) : run({{"child_tuning", options}}) {}
  std::vector<Tensor> masked(int64_t step) {
    for (Param& param : params) param.value.mutable_grad() = Tensor();
    for (size_t i = 0; i < params.size(); ++i)
      params[i].value.mutable_grad() = gradients[i].clone();
    Pass pass;
    pass.step = step;
    run.adaptation.after_backward(pass);
    std::vector<Tensor> result;
    for (const Param& param : params) result.push_back(param.value.grad());
    return result;
  }
  void draw_gradients() {
    const Batch batch = toy_batch(0, 12);
    params = run.adaptation.trainable();
    backward(run.model.forward(batch, {})
                 .head->cross_entropy(batch.fields.at("labels"), Tensor(), 0)
                 .sum);
    for (const Param& param : params) gradients.push_back(param.value.grad().clone());
  }
  ToyRun run;
  std::vector<Param> params;
  std::vector<Tensor> gradients;
};

TEST(ChildTuningF, TheMaskedGradientIsTheGradientInTheMean) {
  Raised raised(Json{{"mode", "F"}, {"share", 0.3}});
  raised.draw_gradients();
  const int64_t draws = 1500;
  std::vector<Tensor> sums;
  for (const Tensor& gradient : raised.gradients) sums.push_back(at::zeros_like(gradient));
  for (int64_t step = 0; step < draws; ++step) {
    const std::vector<Tensor> masked = raised.masked(step);
    for (size_t i = 0; i < sums.size(); ++i) {
      if (step == 0) {  // each element is 0 or g / p
        const Tensor expected =
            at::where(masked[i].ne(0), raised.gradients[i] / 0.3, at::zeros_like(masked[i]));
        const double largest = std::max(1.0, expected.abs().max().item<double>());
        EXPECT_LE((masked[i] - expected).abs().max().item<double>(), 1e-6 * largest);
      }
      sums[i] += masked[i];
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    // Standard deviation of the mean of g * Bernoulli(p) / p.
    const Tensor spread =
        raised.gradients[i].abs() * std::sqrt(0.7 / 0.3 / static_cast<double>(draws));
    EXPECT_TRUE((sums[i] / static_cast<double>(draws) - raised.gradients[i])
                    .abs()
                    .le(5.5 * spread + 1e-12)
                    .all()
                    .item<bool>())
        << raised.params[i].name;
  }
}

TEST(ChildTuningF, AStepsMaskIsAFunctionOfTheSeedAndTheStep) {
  Raised raised(Json{{"mode", "F"}, {"share", 0.5}});
  raised.draw_gradients();
  const std::vector<Tensor> first = raised.masked(4), again = raised.masked(4),
                            other = raised.masked(5);
  bool differs = false;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_TRUE(at::equal(first[i], again[i]));
    differs = differs || !at::equal(first[i], other[i]);
  }
  EXPECT_TRUE(differs);
}

TEST(ChildTuningF, TheWholeShareIsFullFineTuning) {
  ToyRun child({{"child_tuning", Json{{"mode", "F"}, {"share", 1}}}});
  ToyRun full({{"full", Json{{"sites", {"enc.*"}}}}});
  child.train();
  full.train();
  for (const std::pair<const std::string, Tensor>& entry : full.trained()) {
    std::string name = entry.first;
    name.replace(name.find("full"), 4, "child_tuning");
    EXPECT_TRUE(at::equal(entry.second, child.trained().at(name))) << name;
  }
}

TEST(ChildTuningF, AResumedRunEndsWithTheSameBits) {
  const ToyRun::Named method{{"child_tuning", Json{{"mode", "F"}, {"share", 0.4}}}};
  ToyRun whole(method), rest(method);
  whole.train();
  rest.resume_from(whole, 3);
  EXPECT_TRUE(same(whole.trained(), rest.trained()));
}

TEST(ChildTuningD, TheShareWithTheLargestFisherInformationTrainsAndTheRestIsBitEqual) {
  ToyRun run({{"child_tuning", Json{{"share", 0.25}}}});
  run.config.batches.batch_size = 1;
  run.config.adamw.weight_decay = 0.5;
  run.config.epochs = 1;
  run.train();
  ToyRun reference({{"full", Json{{"sites", {"enc.*"}}}}});
  std::vector<Tensor> fisher;
  for (int64_t example = 0; example < 12; ++example) {
    const Batch batch = toy_batch(example, 1);
    backward(reference.model.forward(batch, {})
                 .head->cross_entropy(batch.fields.at("labels"), Tensor(), 0)
                 .sum);
    const std::vector<Param> params = reference.adaptation.trainable();
    for (size_t i = 0; i < params.size(); ++i) {
      const Tensor square = params[i].value.grad().square();
      if (example == 0)
        fisher.push_back(square);
      else
        fisher[i] = fisher[i] + square;
      Tensor(params[i].value).mutable_grad() = Tensor();
    }
  }
  const std::vector<Param> params = run.adaptation.trainable();
  double least_chosen = 1e300, most_left = 0;
  int64_t ones = 0, elements = 0;
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor mask = params[i].mask.ne(0);
    ones += mask.sum().item<int64_t>();
    elements += mask.numel();
    if (mask.any().item<bool>())
      least_chosen = std::min(least_chosen, fisher[i].masked_select(mask).min().item<double>());
    if (!mask.all().item<bool>())
      most_left =
          std::max(most_left, fisher[i].masked_select(mask.logical_not()).max().item<double>());
    const Tensor moved = params[i].value.detach().ne(run.base(params[i].name));
    EXPECT_FALSE(moved.logical_and(mask.logical_not()).any().item<bool>()) << params[i].name;
  }
  EXPECT_GE(least_chosen, most_left);
  EXPECT_EQ(ones, std::llround(0.25 * static_cast<double>(elements)));
}

TEST(ChildTuningD, AResumedRunKeepsItsMaskAndEndsWithTheSameBits) {
  const ToyRun::Named method{{"child_tuning", Json{{"share", 0.2}}}};
  ToyRun whole(method), rest(method);
  whole.train();
  rest.resume_from(whole, 5);
  EXPECT_TRUE(same(whole.trained(), rest.trained()));
}

TEST(ChildTuning, TheCountIsAllOrTheShare) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  // q [6, 6] + 6 and up [8, 6] + 8.
  bench->attach("child_tuning", Json{{"mode", "F"}});
  EXPECT_EQ(bench->formula("child_tuning", {"enc.0.self.q", "enc.0.ffn.up"}), 42 + 56);
  const std::unique_ptr<MethodBench> other = MethodBench::encoder();
  other->attach("child_tuning", Json{{"share", 0.1}});
  EXPECT_EQ(other->formula("child_tuning", {"enc.0.self.q", "enc.0.ffn.up"}), 10);
}

TEST(ChildTuning, BadOptionsAreReadableErrors) {
  EXPECT_NE(MethodBench::error_of("child_tuning", Json{{"share", 0}}).find("(0, 1]"),
            std::string::npos);
  EXPECT_NE(MethodBench::error_of("child_tuning", Json{{"mode", "E"}}).find("D"),
            std::string::npos);
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  Tuner& tuner = bench->attach("child_tuning", Json{{"batches", 4}});
  Calibration empty;
  empty.gradients = [](int64_t, const std::function<void(double)>&) {};
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { tuner.calibrate(empty); }),
            "child_tuning: the Fisher information needs labelled training examples, but there is "
            "none among the first 4 batch(es) of the data");
}

}  // namespace child_tuning_test
}  // namespace attune
