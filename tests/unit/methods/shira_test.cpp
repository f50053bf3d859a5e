// SHiRA: the entries that train, where they are, and how many.
#include "formula.h"
#include "method_bench.h"
#include "methods/positions.h"

namespace attune {
namespace shira_test {

const char* const kSite = "enc.0.self.q";

std::unique_ptr<MethodBench> bench_of(int64_t out, int64_t in, const Json& options) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, out, in);
  bench->attach("shira", options);
  return bench;
}

TEST(Positions, ASampleIsDistinctAscendingAndOfAllPlaces) {
  std::vector<int> hits(10);
  for (uint64_t key = 0; key < 2000; ++key) {
    const Tensor places = sample_positions(key, 4, 10);
    ASSERT_EQ(places.numel(), 4);
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t place = places[k].item<int64_t>();
      ++hits[static_cast<size_t>(place)];
      if (k > 0) {
        EXPECT_GT(place, places[k - 1].item<int64_t>());
      }
    }
  }
  // Every place is in 4 of 10 samples; 5 standard deviations of 2,000 draws are 110.
  for (const int count : hits) EXPECT_NEAR(count, 800, 110);
  EXPECT_TRUE(at::equal(sample_positions(3, 5, 5), at::arange(5)));
}

TEST(Positions, TheLargestAreChosenByMagnitude) {
  const Tensor x = at::tensor({0.1, -3.0, 2.0, 0.0, -0.5, 2.5}, at::kDouble).reshape({2, 3});
  EXPECT_TRUE(at::equal(largest_positions(x, 3), at::tensor({1, 2, 5}, at::kLong)));
  EXPECT_TRUE(at::equal(rows_and_columns(largest_positions(x, 3), 3),
                        at::tensor({0, 0, 1, 1, 2, 2}, at::kInt).reshape({2, 3})));
}

TEST(Shira, AddsTheValuesAtThePositionsAndNowhereElse) {
  const std::unique_ptr<MethodBench> bench = bench_of(7, 9, {{"rank", 2}});
  bench->disturb();
  const Tensor values = bench->parameter_of("enc.0.self.q/values"),
               positions = bench->buffers.at("enc.0.self.q/positions");
  Tensor expected = bench->weight_of(kSite).clone();
  for (int64_t k = 0; k < values.numel(); ++k)
    expected
        .index({static_cast<int64_t>(at2(positions, 0, k)),
                static_cast<int64_t>(at2(positions, 1, k))})
        .add_(at1(values, k));
  EXPECT_EQ(difference(bench->folded(kSite).weight, expected), 0);
  EXPECT_EQ((expected - bench->weight_of(kSite)).count_nonzero().item<int64_t>(), 2 * (7 + 9));
}

TEST(Shira, PositionsThatWereLoadedTakeThePlaceOfTheDrawnOnes) {
  const std::unique_ptr<MethodBench> bench = bench_of(4, 5, {{"rank", 1}});
  bench->disturb();
  const Tensor places = at::arange(9, at::kInt);
  bench->buffers.at("enc.0.self.q/positions").copy_(rows_and_columns(places, 5));
  const Tensor update = bench->folded(kSite).weight - bench->weight_of(kSite);
  EXPECT_LT(
      difference(update.reshape({-1}).slice(0, 0, 9), bench->parameter_of("enc.0.self.q/values")),
      1e-15);
  EXPECT_EQ(update.reshape({-1}).slice(0, 9).abs().max().item<double>(), 0);
}

TEST(Shira, TheMagnitudeMaskTakesTheLargestWeights) {
  const std::unique_ptr<MethodBench> bench = bench_of(7, 9, {{"rank", 1}, {"mask", "magnitude"}});
  bench->set("enc.0.self.q/values", at::ones({16}, at::kDouble));
  const Tensor w = bench->weight_of(kSite).abs();
  const Tensor chosen = (bench->folded(kSite).weight - bench->weight_of(kSite)).abs() > 0.5;
  EXPECT_EQ(chosen.sum().item<int64_t>(), 16);
  EXPECT_GT(w.masked_select(chosen).min().item<double>(),
            w.masked_select(chosen.logical_not()).max().item<double>());
}

TEST(Shira, RandomMasksDifferBetweenProjections) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("shira", {{"rank", 1}});
  EXPECT_FALSE(at::equal(bench->buffers.at("enc.0.self.q/positions"),
                         bench->buffers.at("enc.0.self.v/positions")));
}

TEST(Shira, StartsAsTheBaseAndHasExactGradients) {
  const std::unique_ptr<MethodBench> bench = bench_of(5, 6, {{"rank", 2}});
  EXPECT_EQ(difference(bench->folded(kSite).weight, bench->weight_of(kSite)), 0);
  const Tensor probe = MethodBench::draw("probe", {5, 6});
  expect_gradient(bench->parameter_of("enc.0.self.q/values"),
                  [&] { return (bench->folded(kSite).weight * probe).sum(); });
}

TEST(Shira, TrainsAsManyEntriesAsALowRankUpdate) {
  EXPECT_EQ(bench_of(7, 9, {{"rank", 2}})->trained(), 2 * 16);
  EXPECT_EQ(formula_of("shira", {{"rank", 8}}, blocks_of(12, 768, 3072, {"self.q", "self.v"})),
            294912);
}

TEST(Shira, MoreEntriesThanTheMatrixHasAreRefused) {
  EXPECT_EQ(MethodBench::error_of("shira", {{"rank", 4}}),
            "shira: rank 4 at enc.0.self.q asks for 48 entries of a matrix [6, 6], which has 36; "
            "give a rank of at most 3");
}

}  // namespace shira_test
}  // namespace attune
