#include <cmath>

#include "policies/scoped_edit.h"
#include "support/toy_run.h"
#include "tensor/autograd.h"
#include "train/optimizer.h"

namespace attune {
namespace r_drop_test {

const ToyRun::Named kFull{{"full", Json::object()}};

/// log softmax as a loop.
std::vector<double> log_probabilities(const Tensor& logits, int64_t row) {
  std::vector<double> z;
  double sum = 0;
  for (int64_t c = 0; c < logits.size(1); ++c) {
    z.push_back(logits[row][c].item<double>());
    sum += std::exp(z.back());
  }
  for (double& value : z) value -= std::log(sum);
  return z;
}

/// KL(p || q) + KL(q || p), summed over the rows.
double naive_divergence(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (int64_t row = 0; row < a.size(0); ++row) {
    const std::vector<double> p = log_probabilities(a, row), q = log_probabilities(b, row);
    for (size_t c = 0; c < p.size(); ++c)
      sum += std::exp(p[c]) * (p[c] - q[c]) + std::exp(q[c]) * (q[c] - p[c]);
  }
  return sum;
}

Tensor logits_of(ToyRun& run, const Batch& batch) {
  return run.model.forward(batch, {}).head->logits(Tensor()).detach();
}

Batch training_batch() {
  Batch batch = toy_batch(0, 5);
  batch.pass.training = true;
  batch.pass.seed = 3;
  batch.pass.step = 7;
  return batch;
}

TEST(RDrop, TheLossIsTheMeanOfTwoPassesAndHalfTheDivergence) {
  ToyRun run(kFull, {{"r_drop", Json{{"alpha", 0.8}}}}, 0.3);
  std::vector<Param> params = run.adaptation.trainable();
  TrainState state{run.model, run.adaptation, params, {}};
  const Batch batch = training_batch();
  std::vector<Batch> seen;
  const Loss loss = run.policies[0]->around(state, batch, [&](const Batch& given) {
    seen.push_back(given);
    return run.objective->compute(run.model, given);
  });
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(run.model.forwards, 2);
  const double first = run.objective->compute(run.model, seen[0]).total.sum.item<double>();
  const double second = run.objective->compute(run.model, seen[1]).total.sum.item<double>();
  EXPECT_NE(first, second) << "the two passes must have different dropout";
  const double apart = naive_divergence(logits_of(run, seen[0]), logits_of(run, seen[1]));
  EXPECT_GT(apart, 1e-6);
  EXPECT_NEAR(loss.total.sum.item<double>(), (first + second + 0.8 / 2 * apart) / 2, 1e-12);
  EXPECT_EQ(loss.total.count, 5);
}

TEST(RDrop, TheGradientReachesBothPasses) {
  ToyRun run(kFull, {{"r_drop", Json{{"alpha", 2}}}}, 0.3);
  std::vector<Param> params = run.adaptation.trainable();
  TrainState state{run.model, run.adaptation, params, {}};
  const Batch batch = training_batch();
  const auto loss = [&] {
    return run.policies[0]
        ->around(state, batch,
                 [&](const Batch& given) { return run.objective->compute(run.model, given); })
        .total.sum;
  };
  backward(loss());
  Param& param = params.back();  // the head
  const Tensor gradient = param.value.grad().clone(), value = param.value.detach();
  for (int64_t i = 0; i < value.numel(); ++i) {
    double* element = static_cast<double*>(value.data_ptr()) + i;
    const double kept = *element;
    *element = kept + 1e-5;
    mark_changed(param.value);
    const double up = loss().item<double>();
    *element = kept - 1e-5;
    mark_changed(param.value);
    const double down = loss().item<double>();
    *element = kept;
    mark_changed(param.value);
    EXPECT_NEAR(gradient.reshape({-1})[i].item<double>(), (up - down) / 2e-5, 1e-7) << i;
  }
}

/// Every gradient by name, copied.
Snapshot gradients(const std::vector<Param>& params) {
  Snapshot result;
  for (const Param& param : params) result[param.name] = param.value.grad().clone();
  return result;
}

TEST(RDrop, AroundAnAdversarialStepEachPassHasTheGradientItHasAlone) {
  for (const char* mode : {"fgm", "pgd", "smart"}) {
    // So weak that the divergence of the two passes adds nothing that shows.
    ToyRun run(kFull, {{"r_drop", Json{{"alpha", 1e-12}}}, {"adversarial", Json{{"mode", mode}}}},
               0.3);
    std::vector<Param> params = run.adaptation.trainable();
    TrainState state{run.model, run.adaptation, params, {}};
    const auto adversarial = [&](const Batch& given) {
      return run.policies[1]->around(state, given, [&](const Batch& inner) {
        return run.objective->compute(run.model, inner);
      });
    };
    std::vector<Batch> seen;
    backward(run.policies[0]
                 ->around(state, training_batch(),
                          [&](const Batch& given) {
                            seen.push_back(given);
                            return adversarial(given);
                          })
                 .total.sum);
    const Snapshot together = gradients(params);
    ASSERT_EQ(seen.size(), 2u);
    clear_gradients(params);
    for (const Batch& batch : seen) backward(adversarial(batch).total.sum / 2);
    for (const std::pair<const std::string, Tensor>& entry : gradients(params))
      EXPECT_LE((entry.second - together.at(entry.first)).abs().max().item<double>(), 1e-9)
          << mode << " " << entry.first;
  }
}

TEST(RDrop, NoWatcherIsLeftBehind) {
  ToyRun run(kFull, {{"r_drop", Json::object()}});
  run.config.steps = 1;
  run.train();
  const SitePlan* plan = run.model.plan().at(run.model.site("logits").id);
  EXPECT_TRUE(plan == nullptr || plan->edits.empty());
}

TEST(Divergence, OfClassesLeavesOutRowsWithoutALabel) {
  const Tensor a = normal_tensor(1, {4, 3}, 1, at::kDouble),
               b = normal_tensor(2, {4, 3}, 1, at::kDouble);
  Batch batch;
  batch.fields["labels"] = int64_tensor({0, -100, 2, -100});
  const Tensor kept = int64_tensor({0, 2});
  EXPECT_NEAR(divergence(a, b, batch).item<double>(),
              naive_divergence(a.index_select(0, kept), b.index_select(0, kept)) / 2, 1e-12);
  EXPECT_EQ(divergence(a, a, batch).item<double>(), 0);
  EXPECT_NEAR(divergence(a, b, batch).item<double>(), divergence(b, a, batch).item<double>(),
              1e-14);
}

TEST(Divergence, OfSeveralLabelsIsThatOfEachSigmoid) {
  const Tensor a = normal_tensor(1, {3, 4}, 1, at::kDouble),
               b = normal_tensor(2, {3, 4}, 1, at::kDouble);
  Batch batch;
  batch.fields["targets"] = at::zeros({3, 4});
  double expected = 0;
  for (int64_t i = 0; i < 12; ++i) {
    const double p = 1 / (1 + std::exp(-a.reshape({-1})[i].item<double>()));
    const double q = 1 / (1 + std::exp(-b.reshape({-1})[i].item<double>()));
    expected += p * std::log(p / q) + (1 - p) * std::log((1 - p) / (1 - q)) + q * std::log(q / p) +
                (1 - q) * std::log((1 - q) / (1 - p));
  }
  EXPECT_NEAR(divergence(a, b, batch).item<double>(), expected / 12, 1e-12);
}

TEST(Divergence, OfANumberIsTheSquaredDifference) {
  Batch batch;
  batch.fields["targets"] = at::zeros({2, 1});
  const Tensor a = at::tensor({1.0, 2.0}, at::kDouble).reshape({2, 1});
  EXPECT_NEAR(divergence(a, a + 0.5, batch).item<double>(), 0.25, 1e-15);
}

TEST(ScopedEdit, ActsWhileItLivesAfterTheEditsOfMethods) {
  ToyRun run({{"ia3", Json{{"sites", {"*.self.[kv]"}}}}});
  const Batch batch = toy_batch(0, 3);
  const Tensor before = logits_of(run, batch);
  {
    const ScopedEdit edit(run.model, run.model.site("logits"), Shift{at::ones({3}, at::kDouble)},
                          "test");
    EXPECT_LE((logits_of(run, batch) - before - 1).abs().max().item<double>(), 1e-15);
  }
  EXPECT_TRUE(at::equal(logits_of(run, batch), before));
}

TEST(ScopedEdit, ASiteThatDoesNotAdmitTheVerbIsAReadableError) {
  ToyRun run(kFull);
  EXPECT_EQ(error_text(ErrorCode::BadInput,
                       [&] {
                         const ScopedEdit edit(run.model, run.model.site("enc.0.self.q"), Observe{},
                                               "test");
                       }),
            "test: site enc.0.self.q (weight) does not admit Observe; docs/sites.md lists which "
            "verbs each kind of site admits");
}

TEST(WatchLogits, AHeadThatIsNeverAskedIsAReadableError) {
  ToyRun run(kFull);
  EXPECT_EQ(error_text(ErrorCode::Unsupported,
                       [&] {
                         watch_logits(
                             run.model, toy_batch(0, 1), [](const Batch&) { return Loss{}; },
                             "r_drop");
                       }),
            "r_drop: compares what the head gives, but this model's head gives no logits in "
            "training");
}

}  // namespace r_drop_test
}  // namespace attune
