// MiSS: shards of the inputs share one matrix; its variants.
#include "formula.h"
#include "method_bench.h"

namespace attune {
namespace miss_test {

const char* const kSite = "enc.0.self.q";

std::unique_ptr<MethodBench> bench_of(int64_t out, int64_t in, const Json& options) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, out, in);
  bench->attach("miss", options);
  bench->disturb();
  return bench;
}

TEST(Miss, TheUpdateOfAnOutputIsItsRowOverEveryShard) {
  for (const int64_t in : {9, 11}) {  // 11: the last shard is cut
    const std::unique_ptr<MethodBench> bench = bench_of(5, in, {{"rank", 3}});
    const Tensor up = bench->parameter_of("enc.0.self.q/up");
    const Tensor update = bench->folded(kSite).weight - bench->weight_of(kSite);
    for (int64_t o = 0; o < 5; ++o)
      for (int64_t i = 0; i < in; ++i) EXPECT_NEAR(at2(update, o, i), at2(up, o, i % 3), 1e-14);
  }
}

TEST(Miss, BalanceAndMiniAreLowRankEdits) {
  for (const char* variant : {"balance", "mini"}) {
    const std::unique_ptr<MethodBench> bench =
        bench_of(6, 9, {{"rank", 3}, {"variant", variant}, {"dropout", 0.5}});
    ASSERT_EQ(bench->edits.size(), 1u);
    const LowRank& low = std::get<LowRank>(bench->edits.front().second);
    EXPECT_EQ(low.dropout, 0.5);
    EXPECT_EQ(low.scale, 1);
    EXPECT_FALSE(low.down.requires_grad());
  }
}

TEST(Miss, MiniRepeatsItsRowsOverTheOutputs) {
  const std::unique_ptr<MethodBench> bench =
      bench_of(6, 9, {{"rank", 3}, {"variant", "mini"}, {"mini_rank", 2}});
  const Tensor up = bench->parameter_of("enc.0.self.q/up");
  EXPECT_EQ(up.sizes(), (at::IntArrayRef{2, 3}));
  const Tensor update = bench->folded(kSite).weight - bench->weight_of(kSite);
  for (int64_t o = 0; o < 6; ++o)
    for (int64_t i = 0; i < 9; ++i) EXPECT_NEAR(at2(update, o, i), at2(up, o % 2, i % 3), 1e-14);
}

TEST(Miss, BatMultipliesEverySquareBlockByThatOfItsRows) {
  const std::unique_ptr<MethodBench> bench = bench_of(6, 9, {{"rank", 3}, {"variant", "bat"}});
  const Tensor blocks = bench->parameter_of("enc.0.self.q/blocks").detach();
  const Tensor w = bench->weight_of(kSite), folded = bench->folded(kSite).weight;
  for (int64_t o = 0; o < 2; ++o)
    for (int64_t i = 0; i < 3; ++i) {
      const Tensor block = w.slice(0, 3 * o, 3 * o + 3).slice(1, 3 * i, 3 * i + 3);
      const Tensor b = blocks.select(0, o);
      EXPECT_LT(difference(folded.slice(0, 3 * o, 3 * o + 3).slice(1, 3 * i, 3 * i + 3),
                           block + naive_product(block, b) + b),
                1e-13);
    }
}

TEST(Miss, EveryVariantStartsAsTheBase) {
  for (const char* variant : {"balance", "bat", "mini"}) {
    const std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
    bench->projection(kSite, 6, 9);
    bench->attach("miss", {{"rank", 3}, {"variant", variant}});
    EXPECT_EQ(difference(bench->folded(kSite).weight, bench->weight_of(kSite)), 0) << variant;
  }
}

TEST(Miss, GradientsAreThoseOfFiniteDifferences) {
  const Tensor probe = MethodBench::draw("probe", {6, 9});
  for (const char* variant : {"balance", "bat", "mini"}) {
    const std::unique_ptr<MethodBench> bench = bench_of(6, 9, {{"rank", 3}, {"variant", variant}});
    expect_gradient(bench->parameters.begin()->second,
                    [&] { return (bench->folded(kSite).weight * probe).sum(); });
  }
}

TEST(Miss, TrainsRankNumbersAnOutput) {
  EXPECT_EQ(bench_of(6, 9, {{"rank", 3}})->trained(), 3 * 6);
  EXPECT_EQ(bench_of(6, 9, {{"rank", 3}, {"variant", "bat"}})->trained(), 3 * 6);
  const Json mini{{"rank", 3}, {"variant", "mini"}, {"mini_rank", 2}};
  EXPECT_EQ(bench_of(6, 9, mini)->trained(), 3 * 2);
  const std::vector<Site> sites = blocks_of(12, 768, 3072, {"self.q", "ffn.up"});
  EXPECT_EQ(formula_of("miss", Json::object(), sites), 12 * 64 * (768 + 3072));
  EXPECT_EQ(formula_of("miss", mini, sites), 24 * 3 * 2);
}

TEST(Miss, RanksThatDoNotFitAreRefused) {
  EXPECT_EQ(MethodBench::error_of("miss", {{"rank", 7}}),
            "miss: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at most "
            "6");
  EXPECT_EQ(MethodBench::error_of("miss", {{"rank", 4}, {"variant", "bat"}}),
            "miss: variant bat cuts enc.0.self.q [6, 6] into square blocks of 4 rows, which does "
            "not divide both sides; give a rank that does, or another variant");
  EXPECT_EQ(MethodBench::error_of("miss", {{"rank", 3}, {"variant", "mini"}, {"mini_rank", 4}}),
            "miss: mini_rank 4 does not divide the 6 outputs of enc.0.self.q; give a divisor");
  EXPECT_EQ(MethodBench::error_of("miss", {{"variant", "bat"}, {"dropout", 0.1}}),
            "test: test.dropout: variant bat changes the weight itself, so its input has no "
            "dropout; use 0 or another variant");
  EXPECT_EQ(MethodBench::error_of("miss", {{"rank", 3}, {"mini_rank", 2}}),
            "test: test.mini_rank: only variant mini reads mini_rank; this one is balance");
}

}  // namespace miss_test
}  // namespace attune
