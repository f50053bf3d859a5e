#include <algorithm>
#include <cmath>

#include "method_bench.h"
#include "support/toy_run.h"

namespace attune {
namespace diff_pruning_test {

const std::string kQ = "enc.0.self.q";

std::unique_ptr<MethodBench> pruning(Json options = Json::object()) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  Json all{{"sites", Json::array({"enc.0.self.q", "enc.1.ffn.up", "enc.0.self.norm"})},
           {"density", 0.25},
           {"gate_init", 0.5}};
  all.update(options);
  bench->attach("diff_pruning", all);
  return bench;
}

Pass pass_of(bool training, int64_t step, double progress) {
  Pass pass;
  pass.training = training;
  pass.step = step;
  pass.progress = progress;
  return pass;
}

/// What a site's weight moved by.
Tensor delta(MethodBench& bench, const std::string& site, const Pass& pass) {
  return bench.folded(site, pass).weight.detach() - bench.weight_of(site);
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
/// A gate without noise, between -1.5 and 1.5.
double gate(double alpha) {
  return std::min(1.0, std::max(0.0, sigmoid(alpha) * 3 - 1.5));
}

TEST(DiffPruning, ADifferenceIsItsGateTimesItsGroupsTimesItsValue) {
  const std::unique_ptr<MethodBench> bench = pruning();
  bench->disturb();
  const Tensor got = delta(*bench, kQ, pass_of(false, 0, 0));
  const Tensor w = bench->parameter_of(kQ + "/difference"), a = bench->parameter_of(kQ + "/gates");
  const double whole = gate(at1(bench->parameter_of(kQ + "/group"), 0));
  for (int64_t i = 0; i < 6; ++i)
    for (int64_t j = 0; j < 6; ++j)
      EXPECT_NEAR(at2(got, i, j), at2(w, i, j) * gate(at2(a, i, j)) * whole, 1e-12);
  const Affine folded = bench->folded(kQ);
  const Tensor bias = folded.bias.detach() - bench->bias(bench->site(kQ));
  const double of_bias = gate(at1(bench->parameter_of(kQ + "/bias_group"), 0));
  for (int64_t i = 0; i < 6; ++i)
    EXPECT_NEAR(at1(bias, i),
                at1(bench->parameter_of(kQ + "/bias_difference"), i) *
                    gate(at1(bench->parameter_of(kQ + "/bias_gates"), i)) * of_bias,
                1e-12);
}

TEST(DiffPruning, BeginsBitIdenticalToTheBaseWhateverTheGates) {
  const std::unique_ptr<MethodBench> bench = pruning();
  for (const bool training : {false, true})
    EXPECT_EQ(difference(bench->folded(kQ, pass_of(training, 3, 0.1)).weight, bench->weight_of(kQ)),
              0);
}

TEST(DiffPruning, ATrainingPassDrawsGatesOfTheHardConcreteDistribution) {
  std::unique_ptr<MethodBench> bench = pruning({{"structured", false}});
  const double alpha = 0.7;
  bench->set(kQ + "/difference", at::ones({6, 6}, at::kDouble));
  bench->set(kQ + "/gates", at::full({6, 6}, alpha, at::kDouble));
  int64_t closed = 0, full = 0, count = 0;
  double below = 0;
  for (int64_t step = 0; step < 400; ++step) {
    const Tensor z = delta(*bench, kQ, pass_of(true, step, 0.1)).reshape({-1});
    for (int64_t i = 0; i < z.numel(); ++i) {
      const double value = at1(z, i);
      ASSERT_TRUE(value >= -1e-12 && value <= 1 + 1e-12);
      closed += value < 1e-12 ? 1 : 0;
      full += value > 1 - 1e-12 ? 1 : 0;
      below += value <= 0.4 ? 1 : 0;
      ++count;
    }
  }
  // P(s <= x) = sigmoid(logit(x) - alpha); z <= v where s <= (v + 1.5) / 3.
  const auto cdf = [&](double v) {
    const double x = (v + 1.5) / 3;
    return sigmoid(std::log(x / (1 - x)) - alpha);
  };
  const double n = static_cast<double>(count), error = 4 * 0.5 / std::sqrt(n);
  EXPECT_NEAR(static_cast<double>(closed) / n, cdf(0), error);
  EXPECT_NEAR(below / n, cdf(0.4), error);
  EXPECT_NEAR(static_cast<double>(full) / n, 1 - cdf(1), error);
  EXPECT_EQ(difference(delta(*bench, kQ, pass_of(true, 5, 0.1)),
                       delta(*bench, kQ, pass_of(true, 5, 0.2))),
            0)
      << "a function of the step";
}

TEST(DiffPruning, GradientsAreThoseOfFiniteDifferencesThroughTheGates) {
  for (const bool training : {false, true}) {
    const std::unique_ptr<MethodBench> bench = pruning();
    bench->disturb(0.3);
    for (const char* name : {"gates", "group"}) {  // where most gates are neither shut nor full
      const Tensor value = bench->parameter_of(kQ + "/" + name).detach();
      bench->set(kQ + "/" + name, value.abs() + 0.3);
    }
    const Tensor by = MethodBench::draw("loss", {6, 6});
    const auto loss = [&] {
      return (bench->folded(kQ, pass_of(training, 7, 0.1)).weight * by).sum();
    };
    for (const char* name : {"difference", "gates", "group"})
      expect_gradient(bench->parameter_of(kQ + "/" + name), loss);
  }
}

TEST(DiffPruning, ThePenaltyIsTheExpectedNumberOfDifferences) {
  const std::unique_ptr<MethodBench> bench =
      pruning({{"penalty", 0.01}, {"low", -0.5}, {"high", 1.2}});
  bench->disturb();
  const double shift = std::log(0.5 / 1.2);
  double expected = 0;
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters) {
    if (!ends_with(entry.first, "gates")) continue;
    const std::string group = entry.first.substr(0, entry.first.size() - 5) + "group";
    const double whole = sigmoid(at1(bench->parameter_of(group), 0) - shift);
    const Tensor alpha = entry.second.reshape({-1});
    for (int64_t i = 0; i < alpha.numel(); ++i) expected += sigmoid(at1(alpha, i) - shift) * whole;
  }
  EXPECT_NEAR(bench->tuner().penalty().item<double>(), 0.01 * expected, 1e-12);
  for (const char* name : {"gates", "group"})
    expect_gradient(bench->parameter_of(kQ + "/" + name), [&] { return bench->tuner().penalty(); });
  EXPECT_FALSE(pruning({{"penalty", 0}})->tuner().penalty().defined());
}

TEST(DiffPruning, TheProjectionKeepsTheShareOfLargestMagnitudeAndFixesIt) {
  const std::unique_ptr<MethodBench> bench = pruning();
  bench->disturb();
  std::vector<double> sizes;  // of all tensors together
  for (const std::string& name :
       {kQ + "/", kQ + "/bias_", std::string("enc.1.ffn.up/"), std::string("enc.1.ffn.up/bias_"),
        std::string("enc.0.self.norm/"), std::string("enc.0.self.norm/bias_")}) {
    const Tensor w = bench->parameter_of(name + "difference").reshape({-1}),
                 a = bench->parameter_of(name + "gates").reshape({-1});
    const double whole = gate(at1(bench->parameter_of(name + "group"), 0));
    for (int64_t i = 0; i < w.numel(); ++i)
      sizes.push_back(std::abs(at1(w, i) * gate(at1(a, i)) * whole));
  }
  std::sort(sizes.rbegin(), sizes.rend());
  const size_t kept = static_cast<size_t>(std::llround(0.25 * static_cast<double>(sizes.size())));
  const Tensor before = delta(*bench, kQ, pass_of(false, 0, 0));
  bench->tuner().after_step(pass_of(true, 4, 0.2));
  EXPECT_TRUE(bench->tuner().penalty().defined()) << "before its time nothing happens";
  bench->tuner().after_step(pass_of(true, 5, 0.45));
  const Tensor after = delta(*bench, kQ, pass_of(true, 6, 0.6));
  for (int64_t i = 0; i < 6; ++i)
    for (int64_t j = 0; j < 6; ++j) {
      const bool stays = std::abs(at2(before, i, j)) >= sizes[kept - 1] - 1e-15;
      EXPECT_NEAR(at2(after, i, j), stays ? at2(before, i, j) : 0, 1e-12);
    }
  int64_t trains = 0;
  for (const std::pair<const std::string, Tensor>& state : bench->states)
    if (ends_with(state.first, "mask")) trains += state.second.sum().item<int64_t>();
  EXPECT_EQ(static_cast<size_t>(trains), kept);
  EXPECT_EQ(bench->learns.at(kQ + "/gates").mask.sum().item<int64_t>(), 0);
  EXPECT_FALSE(bench->tuner().penalty().defined());
}

TEST(DiffPruning, ARunEndsWithTheShareAndWhatIsCutStaysBitEqualToTheBase) {
  const Json options{{"density", 0.1}, {"gate_lr_scale", 20}, {"penalty", 1e-4}};
  ToyRun run({{"diff_pruning", options}});
  run.train();
  int64_t elements = 0, moved = 0, trains = 0;
  for (const Param& param : run.adaptation.trainable()) {
    if (!ends_with(param.name, "difference")) continue;
    elements += param.value.numel();
    moved += param.value.ne(0).sum().item<int64_t>();
    trains += param.mask.sum().item<int64_t>();
    EXPECT_FALSE(param.value.ne(0).logical_and(param.mask.eq(0)).any().item<bool>()) << param.name;
  }
  EXPECT_EQ(trains, std::llround(0.1 * static_cast<double>(elements)));
  EXPECT_GT(moved, trains / 2);
  EXPECT_LE(moved, trains);
  EXPECT_EQ(run.adaptation.cost().trainable, trains);
}

TEST(DiffPruning, AResumedRunEndsWithTheSameBitsFromEitherPhase) {
  const Json options{{"density", 0.1}, {"gate_lr_scale", 20}, {"penalty", 1e-4}};
  ToyRun whole({{"diff_pruning", options}});
  whole.train();
  for (const int64_t step : {2, 6}) {
    ToyRun rest({{"diff_pruning", options}});
    rest.resume_from(whole, step);
    EXPECT_TRUE(same(whole.trained(), rest.trained())) << step;
  }
}

TEST(DiffPruning, CountsADifferenceAndAGateAParameterAndAGateATensor) {
  const std::vector<std::string> sites{kQ, "enc.1.ffn.up", "enc.0.self.norm"};
  const int64_t parameters = (36 + 6) + (48 + 8) + (6 + 6);
  std::unique_ptr<MethodBench> bench = pruning();
  EXPECT_EQ(bench->trained(), 2 * parameters + 6);
  EXPECT_EQ(bench->formula("diff_pruning", sites), 2 * parameters + 6);
  bench = pruning({{"structured", false}});
  EXPECT_EQ(bench->trained(), 2 * parameters);
  EXPECT_EQ(bench->formula("diff_pruning", sites), 2 * parameters);
}

TEST(DiffPruning, TheGatesLearnAtTheirOwnRateWithoutDecay) {
  const std::unique_ptr<MethodBench> bench = pruning({{"gate_lr_scale", 70}});
  for (const char* name : {"gates", "group", "bias_gates", "bias_group"}) {
    EXPECT_EQ(bench->learns.at(kQ + "/" + name).lr_scale, 70);
    EXPECT_EQ(bench->learns.at(kQ + "/" + name).weight_decay, 0);
  }
  EXPECT_EQ(bench->learns.at(kQ + "/difference").lr_scale, 1);
}

TEST(DiffPruning, BadOptionsAreReadableErrors) {
  EXPECT_EQ(MethodBench::error_of("diff_pruning", Json{{"density", 1e-9}}),
            "diff_pruning: density 1e-09 leaves none of 646 parameters; give a larger one");
  EXPECT_EQ(MethodBench::error_of("diff_pruning", Json{{"sites", "enc.*.resid.out"}}),
            "diff_pruning: the chosen sites hold no tensor of the checkpoint; give other `sites`");
  EXPECT_NE(MethodBench::error_of("diff_pruning", Json{{"low", 0.5}}).find("(-inf, 0)"),
            std::string::npos);
}

}  // namespace diff_pruning_test
}  // namespace attune
