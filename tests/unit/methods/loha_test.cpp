#include <set>

#include "method_bench.h"

namespace attune {
namespace loha_test {

const char* const kUp = "enc.0.ffn.up";

std::unique_ptr<MethodBench> loha(Json options = Json::object(), int64_t d = 6, int64_t f = 8) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(d, f);
  options.update(Json{{"rank", 2}, {"alpha", 6}, {"sites", kUp}});
  bench->attach("loha", options);
  return bench;
}

Tensor factor(const MethodBench& bench, const std::string& name) {
  return bench.parameter_of(std::string(kUp) + "/" + name);
}

/// alpha / rank (w1_a w1_b) o (w2_a w2_b), element by element.
Tensor update(const MethodBench& bench) {
  const Tensor first = naive_product(factor(bench, "w1_a"), factor(bench, "w1_b"));
  const Tensor second = naive_product(factor(bench, "w2_a"), factor(bench, "w2_b"));
  return first * second * 3.0;
}

TEST(Loha, AddsTheHadamardProductOfTwoLowRankMatrices) {
  const std::unique_ptr<MethodBench> bench = loha();
  bench->disturb();
  EXPECT_LE(difference(bench->folded(kUp).weight, bench->weight_of(kUp) + update(*bench)), 1e-12);
}

TEST(Loha, TheUpdateHasTheSquareOfTheRank) {
  const std::unique_ptr<MethodBench> bench = loha();
  bench->disturb();
  const Tensor delta = bench->folded(kUp).weight.detach() - bench->weight_of(kUp);
  const Tensor singular = std::get<1>(at::linalg_svd(delta, false));
  EXPECT_GT(at1(singular, 3), 1e-6);
  EXPECT_LT(at1(singular, 4), 1e-12);
}

TEST(Loha, BeginsAtTheBaseWithOneZeroFactor) {
  const std::unique_ptr<MethodBench> bench = loha();
  EXPECT_EQ(difference(bench->folded(kUp).weight, bench->weight_of(kUp)), 0);
  EXPECT_EQ(factor(*bench, "w2_b").abs().max().item<double>(), 0);
  // Kaiming-uniform with a = sqrt(5): 1 / sqrt(columns).
  EXPECT_LE(factor(*bench, "w1_a").abs().max().item<double>(), std::sqrt(0.5));
  EXPECT_LE(factor(*bench, "w1_b").abs().max().item<double>(), std::sqrt(1.0 / 6));
  EXPECT_GT(factor(*bench, "w1_b").abs().max().item<double>(), 0.6 * std::sqrt(1.0 / 6));
}

TEST(Loha, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = loha();
  bench->disturb();
  const Tensor c = MethodBench::draw("c", {8, 6});
  for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b"})
    expect_gradient(factor(*bench, name), [&] { return (bench->folded(kUp).weight * c).sum(); });
}

TEST(Loha, RankDropoutLeavesRowsOutAndScalesTheOthers) {
  const std::unique_ptr<MethodBench> bench = loha({{"rank_dropout", 0.25}}, 6, 400);
  bench->disturb();
  Pass pass;
  pass.training = true;
  std::set<std::vector<int64_t>> patterns;
  for (pass.step = 0; pass.step < 3; ++pass.step) {
    const Tensor delta = bench->folded(kUp, pass).weight - bench->weight_of(kUp);
    const Tensor whole = update(*bench);
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < 400; ++i)
      if (delta.select(0, i).abs().max().item<double>() > 1e-9) kept.push_back(i);
    EXPECT_NEAR(static_cast<double>(kept.size()), 300, 40);
    for (const int64_t i : kept)
      EXPECT_LE(difference(delta.select(0, i),
                           whole.select(0, i) * (400.0 / static_cast<double>(kept.size()))),
                1e-10);
    patterns.insert(kept);
  }
  EXPECT_EQ(patterns.size(), 3u) << "another choice every step";
  EXPECT_LE(difference(bench->folded(kUp).weight, bench->weight_of(kUp) + update(*bench)), 1e-11);
}

TEST(Loha, ModuleDropoutLeavesTheWholeUpdateOutInSomeSteps) {
  const std::unique_ptr<MethodBench> bench = loha({{"module_dropout", 0.5}});
  bench->disturb();
  Pass pass;
  pass.training = true;
  int without = 0;
  for (pass.step = 0; pass.step < 200; ++pass.step) {
    const Tensor delta = bench->folded(kUp, pass).weight - bench->weight_of(kUp);
    if (delta.abs().max().item<double>() == 0) {
      ++without;
    } else {
      EXPECT_LE(difference(delta, update(*bench)), 1e-10);
    }
  }
  EXPECT_NEAR(without, 100, 30);
}

TEST(Loha, CountsTwoLowRankPairs) {
  const std::unique_ptr<MethodBench> bench = loha();
  EXPECT_EQ(bench->trained(), 2 * 2 * (6 + 8));
  EXPECT_EQ(bench->formula("loha", {kUp}), 2 * 2 * (6 + 8));
}

TEST(Loha, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("loha", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("loha", {{"rank", 7}}),
            "loha: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at most "
            "6");
}

}  // namespace loha_test
}  // namespace attune
