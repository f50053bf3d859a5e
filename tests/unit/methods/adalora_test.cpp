#include <algorithm>
#include <cmath>

#include "method_bench.h"

namespace attune {
namespace adalora_test {

const std::vector<std::string> kSites{"enc.0.self.q", "enc.0.ffn.up", "enc.1.self.q"};

std::unique_ptr<MethodBench> adalora(Json options = Json::object()) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  Json all{{"rank", 2}, {"init_rank", 4}, {"alpha", 8}, {"interval", 1}, {"sites", kSites}};
  all.update(options);
  bench->attach("adalora", all);
  return bench;
}

Pass step_of(int64_t step, int64_t steps) {
  Pass pass;
  pass.training = true;
  pass.step = step;
  pass.progress = (static_cast<double>(step) + 0.5) / static_cast<double>(steps);
  return pass;
}

/// New values and gradients, as an optimizer and a backward pass would leave them.
void one_step(MethodBench& bench, const Pass& pass, const std::string& salt = "") {
  for (std::pair<const std::string, Tensor>& entry : bench.parameters) {
    const std::string name = format("{}/{}{}", entry.first, pass.step, salt);
    bench.set(entry.first, MethodBench::draw("v" + name, entry.second.sizes().vec()));
    entry.second.mutable_grad() = MethodBench::draw("g" + name, entry.second.sizes().vec());
  }
  bench.tuner().after_backward(pass);
  bench.tuner().after_step(pass);
}

int64_t nonzero(const MethodBench& bench) {
  int64_t count = 0;
  for (const std::string& site : kSites)
    count += (bench.parameter_of(site + "/e") != 0).sum().item<int64_t>();
  return count;
}

TEST(Adalora, AddsPTimesEOnTheDiagonalTimesQ) {
  const std::unique_ptr<MethodBench> bench = adalora();
  bench->disturb();
  const Tensor p = bench->parameter_of("enc.0.ffn.up/p"), e = bench->parameter_of("enc.0.ffn.up/e"),
               q = bench->parameter_of("enc.0.ffn.up/q");
  const Tensor got = bench->folded("enc.0.ffn.up").weight, base = bench->weight_of("enc.0.ffn.up");
  for (int64_t i = 0; i < 8; ++i)
    for (int64_t j = 0; j < 6; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < 4; ++k) sum += at2(p, i, k) * at1(e, k) * at2(q, k, j);
      EXPECT_NEAR(at2(got, i, j), at2(base, i, j) + 8 / (4 + 1e-5) * sum, 1e-12);
    }
}

TEST(Adalora, BeginsAtTheBaseWithZeroSingularValues) {
  const std::unique_ptr<MethodBench> bench = adalora();
  EXPECT_EQ(difference(bench->folded("enc.0.ffn.up").weight, bench->weight_of("enc.0.ffn.up")), 0);
  EXPECT_EQ(nonzero(*bench), 0);
  const Tensor p = bench->parameter_of("enc.0.ffn.up/p");
  EXPECT_NEAR(p.detach().std().item<double>(), 0.02, 0.008);
}

TEST(Adalora, ThePenaltyIsTheMeanDistanceFromOrthogonality) {
  const std::unique_ptr<MethodBench> bench = adalora({{"orthogonal", 0.3}});
  bench->disturb();
  double sum = 0;
  const Tensor one = at::eye(4, at::kDouble);
  for (const std::string& site : kSites) {
    const Tensor p = bench->parameter_of(site + "/p"), q = bench->parameter_of(site + "/q");
    sum += std::sqrt((naive_product(p.t(), p) - one).pow(2).sum().item<double>());
    sum += std::sqrt((naive_product(q, q.t()) - one).pow(2).sum().item<double>());
  }
  EXPECT_NEAR(bench->tuner().penalty().item<double>(), 0.3 * sum / 6, 1e-12);
  for (const char* name : {"enc.0.ffn.up/p", "enc.0.ffn.up/q"})
    expect_gradient(bench->parameter_of(name), [&] { return bench->tuner().penalty(); });
  EXPECT_FALSE(adalora({{"orthogonal", 0}})->tuner().penalty().defined());
}

TEST(Adalora, ImportanceIsSmoothedSensitivityAndItsUncertainty) {
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 10}, {"t_init", 5}, {"t_final", 1}, {"beta1", 0.8}, {"beta2", 0.6}});
  const std::string name = "enc.0.ffn.up/p";
  std::vector<double> mean(8 * 4, 0), spread(8 * 4, 0);
  for (int64_t step = 0; step < 4; ++step) {
    one_step(*bench, step_of(step, 10));
    const Tensor w = bench->parameter_of(name), g = w.grad();
    for (int64_t i = 0; i < 8; ++i)
      for (int64_t k = 0; k < 4; ++k) {
        const size_t at = static_cast<size_t>(i * 4 + k);
        const double now = std::abs(at2(w, i, k) * at2(g, i, k));
        mean[at] = 0.8 * mean[at] + 0.2 * now;                           // equation 9
        spread[at] = 0.6 * spread[at] + 0.4 * std::abs(now - mean[at]);  // equation 10
      }
  }
  for (int64_t i = 0; i < 8; ++i)
    for (int64_t k = 0; k < 4; ++k) {
      const size_t at = static_cast<size_t>(i * 4 + k);
      EXPECT_NEAR(at2(bench->states.at("enc.0.ffn.up/sensitivity_p"), i, k), mean[at], 1e-12);
      EXPECT_NEAR(at2(bench->states.at("enc.0.ffn.up/uncertainty_p"), i, k), spread[at], 1e-12);
    }
}

/// s(e_k) + mean of s over the k-th column of P + mean of s over the k-th row of Q.
std::vector<double> naive_scores(const MethodBench& bench) {
  std::vector<double> scores;
  const auto s = [&](const std::string& name) -> Tensor {
    const size_t slash = name.rfind('/') + 1;
    return bench.states.at(name.substr(0, slash) + "sensitivity_" + name.substr(slash)) *
           bench.states.at(name.substr(0, slash) + "uncertainty_" + name.substr(slash));
  };
  for (const std::string& site : kSites) {
    const Tensor p = s(site + "/p"), e = s(site + "/e"), q = s(site + "/q");
    for (int64_t k = 0; k < 4; ++k) {
      double score = at1(e, k);
      for (int64_t i = 0; i < p.size(0); ++i)
        score += at2(p, i, k) / static_cast<double>(p.size(0));
      for (int64_t j = 0; j < q.size(1); ++j)
        score += at2(q, k, j) / static_cast<double>(q.size(1));
      scores.push_back(score);
    }
  }
  return scores;
}

TEST(Adalora, IsSettledOnceTheFinalChoiceIsMade) {
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 10}, {"t_init", 2}, {"t_final", 4}});
  for (int64_t step = 0; step < 10; ++step) {
    one_step(*bench, step_of(step, 10));
    EXPECT_EQ(bench->tuner().settled(), step + 1 >= 6) << step;
  }
}

TEST(Adalora, TheBestTripletsOfAllSitesStayAndOthersMayReturn) {
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 20}, {"t_init", 2}, {"t_final", 4}});
  std::vector<std::vector<bool>> choices;
  for (int64_t step = 0; step < 15; ++step) {
    one_step(*bench, step_of(step, 20));
    if (step < 2) continue;
    const std::vector<double> scores = naive_scores(*bench);
    std::vector<bool> kept;
    int64_t count = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      const Tensor e = bench->parameter_of(kSites[i / 4] + "/e");
      kept.push_back(at1(e, static_cast<int64_t>(i % 4)) != 0);
      count += kept.back() ? 1 : 0;
    }
    std::vector<double> sorted = scores;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (size_t i = 0; i < scores.size(); ++i)
      EXPECT_EQ(kept[i], scores[i] >= sorted[static_cast<size_t>(count - 1)]) << i;
    choices.push_back(kept);
  }
  bool returned = false;
  for (size_t t = 1; t < choices.size(); ++t)
    for (size_t i = 0; i < 12; ++i) returned = returned || (!choices[t - 1][i] && choices[t][i]);
  EXPECT_TRUE(returned);
}

TEST(Adalora, TheBudgetFallsAsACubicAndEndsExactly) {
  // 3 sites: from 12 to 6 between steps 10 and 30 of 40 (equation 12).
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 40}, {"t_init", 10}, {"t_final", 10}});
  const std::map<int64_t, int64_t> expected{
      {9, 12}, {10, 12}, {11, 6 + 5}, {15, 6 + 2}, {20, 6 + 0}, {29, 6}, {30, 6}, {31, 6}, {40, 6}};
  for (int64_t step = 1; step <= 40; ++step) {
    one_step(*bench, step_of(step - 1, 40));
    if (expected.count(step) > 0) {
      EXPECT_EQ(nonzero(*bench), expected.at(step)) << "step " << step;
    }
  }
}

TEST(Adalora, TheFinalChoiceStays) {
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 20}, {"t_init", 2}, {"t_final", 10}});
  std::map<std::string, Tensor> kept;
  for (int64_t step = 0; step < 20; ++step) {
    one_step(*bench, step_of(step, 20));
    for (const std::string& site : kSites) {
      const Tensor now = bench->parameter_of(site + "/e") != 0;
      if (step == 9) kept[site] = now;
      if (step > 9) {
        EXPECT_TRUE(now.equal(kept.at(site))) << step;
      }
    }
  }
}

TEST(Adalora, SharesOfTheRunNeedNoStepCountAndEndAtTheBudgetInTheLastStep) {
  for (const double final_share : {0.0, 0.05, 0.3}) {
    for (const int64_t steps : {3, 7, 20}) {
      const std::unique_ptr<MethodBench> bench =
          adalora({{"t_init", 0.2}, {"t_final", final_share}, {"interval", 5}});
      for (int64_t step = 0; step < steps; ++step) {
        one_step(*bench, step_of(step, steps));
        if ((static_cast<double>(step) + 1) / static_cast<double>(steps) <= 0.2) {
          EXPECT_EQ(nonzero(*bench), 12);
        }
      }
      EXPECT_EQ(nonzero(*bench), 6) << final_share << " of " << steps;
    }
  }
}

TEST(Adalora, TheIntervalIsCountedInSteps) {
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 20}, {"t_init", 1}, {"t_final", 1}, {"interval", 7}});
  for (int64_t step = 1; step < 14; ++step) {
    one_step(*bench, step_of(step - 1, 20));
    EXPECT_EQ(nonzero(*bench) < 12, step == 7) << step;
  }
}

TEST(Adalora, ARunThatResumesFromItsStateGoesOnExactly) {
  for (const int64_t stop : {3, 8, 14, 18}) {
    const Json options{{"t_init", 0.1}, {"t_final", 0.2}, {"interval", 2}};
    const std::unique_ptr<MethodBench> whole = adalora(options), first = adalora(options),
                                       second = adalora(options);
    for (int64_t step = 0; step < stop; ++step) {
      one_step(*whole, step_of(step, 20));
      one_step(*first, step_of(step, 20));
    }
    for (const std::pair<const std::string, Tensor>& entry : first->parameters)
      second->set(entry.first, entry.second);
    for (const std::pair<const std::string, Tensor>& entry : first->states)
      second->states.at(entry.first).copy_(entry.second);
    for (int64_t step = stop; step < 20; ++step) {
      one_step(*whole, step_of(step, 20));
      one_step(*second, step_of(step, 20));
      for (const std::string& site : kSites)
        EXPECT_EQ(difference(whole->parameter_of(site + "/e"), second->parameter_of(site + "/e")),
                  0);
    }
  }
}

TEST(Adalora, ThePruningReachesTheWeight) {
  const std::unique_ptr<MethodBench> bench =
      adalora({{"total_steps", 4}, {"t_init", 1}, {"t_final", 1}, {"rank", 1}});
  for (int64_t step = 0; step < 4; ++step) one_step(*bench, step_of(step, 4));
  EXPECT_EQ(nonzero(*bench), 3);
  for (const std::string& site : kSites) {
    const Tensor delta = bench->folded(site).weight.detach() - bench->weight_of(site);
    const int64_t rank = (bench->parameter_of(site + "/e") != 0).sum().item<int64_t>();
    const Tensor singular = std::get<1>(at::linalg_svd(delta, false));
    EXPECT_EQ((singular > 1e-10).sum().item<int64_t>(), rank) << site;
  }
}

TEST(Adalora, CountsTheInitialTriplets) {
  const std::unique_ptr<MethodBench> bench = adalora();
  EXPECT_EQ(bench->trained(), 4 * (2 * (6 + 6 + 1) + (6 + 8 + 1)));
  EXPECT_EQ(bench->formula("adalora", kSites), bench->trained());
}

TEST(Adalora, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("adalora", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("adalora", {{"rank", 13}}),
            "test: test.rank: rank 13 is more than the 12 singular values a site begins with; give "
            "a rank of at most init_rank");
  EXPECT_EQ(MethodBench::error_of("adalora", {{"rank", 2}, {"init_rank", 7}}),
            "adalora: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at "
            "most 6");
  EXPECT_EQ(MethodBench::error_of("adalora", {{"t_init", 200}}),
            "test: test.t_init: 200 counts steps, which needs total_steps; give total_steps, or a "
            "share of the run below 1");
  EXPECT_EQ(
      MethodBench::error_of("adalora", {{"t_init", 200}, {"t_final", 100}, {"total_steps", 300}}),
      "test: test.t_init: t_init 200 and t_final 100 leave no time for the budget to fall "
      "within 300 steps; lower one of them or raise total_steps");
  EXPECT_EQ(MethodBench::error_of("adalora", {{"t_init", 0.5}, {"t_final", 0.5}}),
            "test: test.t_init: t_init 0.5 and t_final 0.5 leave no time for the budget to fall "
            "within the run; lower one of them");
  EXPECT_NE(MethodBench::error_of("adalora", {{"beta1", 1}}).find("beta1"), std::string::npos);
}

}  // namespace adalora_test
}  // namespace attune
