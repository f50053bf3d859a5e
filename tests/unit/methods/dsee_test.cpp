// DSEE: the low-rank + sparse update, the choice of its places, the decomposition behind it.
#include "formula.h"
#include "method_bench.h"
#include "methods/decomposition.h"
#include "methods/positions.h"

namespace attune {
namespace dsee_test {

const char* const kSite = "enc.0.self.q";

std::unique_ptr<MethodBench> bench_of(int64_t out, int64_t in, const Json& options) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, out, in);
  bench->attach("dsee", options);
  return bench;
}

TEST(Dsee, BothPartsAreScaledByAlphaOverRank) {
  const std::unique_ptr<MethodBench> bench =
      bench_of(7, 9, {{"rank", 2}, {"alpha", 5}, {"num_sparse", 6}});
  bench->disturb();
  const Tensor down = bench->parameter_of("enc.0.self.q/down"),
               up = bench->parameter_of("enc.0.self.q/up"),
               values = bench->parameter_of("enc.0.self.q/values"),
               positions = bench->buffers.at("enc.0.self.q/positions");
  Tensor expected = bench->weight_of(kSite) + naive_product(up, down) * 2.5;
  for (int64_t k = 0; k < 6; ++k)
    expected
        .index({static_cast<int64_t>(at2(positions, 0, k)),
                static_cast<int64_t>(at2(positions, 1, k))})
        .add_(2.5 * at1(values, k));
  EXPECT_LT(difference(bench->folded(kSite).weight, expected), 1e-14);
}

TEST(Dsee, StartsAsTheBaseWithTheDrawnDownMatrix) {
  const std::unique_ptr<MethodBench> bench = bench_of(60, 80, {{"rank", 32}, {"num_sparse", 6}});
  EXPECT_EQ(difference(bench->folded(kSite).weight, bench->weight_of(kSite)), 0);
  EXPECT_NEAR(bench->parameter_of("enc.0.self.q/down").detach().std().item<double>(), 0.02, 1e-3);
}

TEST(Dsee, WithoutFreeEntriesItIsALowRankUpdateAlone) {
  const std::unique_ptr<MethodBench> bench =
      bench_of(6, 6, {{"rank", 2}, {"num_sparse", 0}, {"dropout", 0.1}});
  ASSERT_EQ(bench->edits.size(), 1u);
  const LowRank& low = std::get<LowRank>(bench->edits.front().second);
  EXPECT_EQ(low.scale, 16);
  EXPECT_EQ(low.dropout, 0.1);
  EXPECT_TRUE(bench->buffers.empty());
}

TEST(Dsee, TheSparsePartComesFirstSoThatTheLowRankPartStaysBesideTheWeight) {
  const std::unique_ptr<MethodBench> bench = bench_of(6, 6, {{"rank", 2}, {"num_sparse", 3}});
  ASSERT_EQ(bench->edits.size(), 2u);
  EXPECT_STREQ(verb_name(bench->edits[0].second), "Reweight");
  EXPECT_STREQ(verb_name(bench->edits[1].second), "LowRank");
}

/// Places of a method's positions in the flattened matrix.
std::set<int64_t> places_of(const MethodBench& bench, int64_t columns) {
  const Tensor positions = bench.buffers.at("enc.0.self.q/positions");
  std::set<int64_t> places;
  for (int64_t k = 0; k < positions.size(1); ++k)
    places.insert(static_cast<int64_t>(at2(positions, 0, k)) * columns +
                  static_cast<int64_t>(at2(positions, 1, k)));
  return places;
}

TEST(Dsee, ExactlyTheAskedEntriesAreFreeUnderEveryRule) {
  for (const char* rule : {"grebsmo", "omp", "rp"})
    for (const int64_t count : {1, 17, 63})
      EXPECT_EQ(
          places_of(*bench_of(7, 9, {{"rank", 1}, {"num_sparse", count}, {"sparse_method", rule}}),
                    9)
              .size(),
          static_cast<size_t>(count))
          << rule;
}

TEST(Dsee, OmpTakesTheLargestWeights) {
  const std::unique_ptr<MethodBench> bench =
      bench_of(7, 9, {{"rank", 1}, {"num_sparse", 10}, {"sparse_method", "omp"}});
  std::vector<std::pair<double, int64_t>> order;
  for (int64_t i = 0; i < 63; ++i)
    order.emplace_back(-std::abs(at2(bench->weight_of(kSite), i / 9, i % 9)), i);
  std::sort(order.begin(), order.end());
  std::set<int64_t> expected;
  for (size_t k = 0; k < 10; ++k) expected.insert(order[k].second);
  EXPECT_EQ(places_of(*bench, 9), expected);
}

/// Rank 5 of entries about `size`, noise 0.005 and 64 spikes of +-0.5 in 128 x 128.
Tensor planted(uint64_t key, std::set<int64_t>& spikes, double size = 0.02) {
  const std::string name = std::to_string(key);
  const Tensor low = naive_product(MethodBench::draw("a" + name, {128, 5}),
                                   MethodBench::draw("b" + name, {5, 128}));
  Tensor w = low * (size / std::sqrt(5.0)) + MethodBench::draw("n" + name, {128, 128}) * 0.005;
  const Tensor places = sample_positions(key, 64, 128 * 128);
  for (int64_t k = 0; k < 64; ++k) {
    spikes.insert(places[k].item<int64_t>());
    w.reshape({-1}).select(0, places[k].item<int64_t>()).add_(k % 2 == 0 ? 0.5 : -0.5);
  }
  return w;
}

/// How many of the spikes are among the 64 largest entries of x.
int64_t found(const Tensor& x, const std::set<int64_t>& spikes) {
  const Tensor places = largest_positions(x, 64);
  int64_t count = 0;
  for (int64_t k = 0; k < 64; ++k)
    count += static_cast<int64_t>(spikes.count(places[k].item<int64_t>()));
  return count;
}

TEST(GreedyBilateral, WhatIsLeftIsBelowTheThreshold) {
  std::set<int64_t> spikes;
  const Tensor w = planted(1, spikes);
  for (const int64_t rounds : {1, 3}) {
    const LowRankSparse parts = greedy_bilateral(w, rounds, 0.01, 5, 3);
    EXPECT_EQ(parts.u.size(1), 1 + 5 * (rounds - 1));
    EXPECT_LT(
        difference(naive_product(parts.u.t(), parts.u), at::eye(parts.u.size(1), at::kDouble)),
        1e-12);
    const Tensor rest = w - naive_product(parts.u, parts.v) - parts.s;
    EXPECT_LT(rest.abs().max().item<double>(), 0.01);
    EXPECT_GE(parts.s.masked_select(parts.s != 0).abs().min().item<double>(), 0.01);
  }
}

TEST(GreedyBilateral, MoreRoundsLeaveLess) {
  std::set<int64_t> spikes;
  const Tensor w = planted(1, spikes);
  double before = 1e30;
  for (const int64_t rounds : {1, 2, 3}) {
    const LowRankSparse parts = greedy_bilateral(w, rounds, 0.01, 5, 3);
    const double norm = (w - naive_product(parts.u, parts.v)).norm().item<double>();
    EXPECT_LT(norm, before);
    before = norm;
  }
}

TEST(GreedyBilateral, FindsSpikesBelowALowRankPartThatHidesThemFromTheWeightsMagnitude) {
  for (const uint64_t key : {1, 2, 3}) {
    std::set<int64_t> spikes;
    const Tensor w = planted(key, spikes, 0.4);
    EXPECT_LT(found(w, spikes), 32);
    EXPECT_GE(found(greedy_bilateral(w, 3, 0.01, 5, 3).s, spikes), 61) << "of 64, key " << key;
  }
}

TEST(GreedyBilateral, TooManyRoundsSwallowTheSpikes) {
  std::set<int64_t> spikes;
  const Tensor w = planted(1, spikes);
  EXPECT_LT(found(greedy_bilateral(w, 20, 0.01, 5, 3).s, spikes), 32);
}

TEST(Dsee, TwoRoundsFindPlantedSpikes) {
  for (const uint64_t key : {1, 2, 3}) {
    std::set<int64_t> spikes;
    const std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
    bench->projection(kSite, 128, 128);
    bench->weight_of(kSite).copy_(planted(key, spikes));
    bench->attach("dsee", {{"rank", 2}, {"num_sparse", 64}});
    int64_t both = 0;
    for (const int64_t place : places_of(*bench, 128))
      both += static_cast<int64_t>(spikes.count(place));
    EXPECT_GE(both, 61) << "of 64, key " << key;
  }
}

TEST(Dsee, AMatrixOfZerosHasPlacesToo) {
  const std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, 6, 6);
  bench->weight_of(kSite).zero_();
  bench->attach("dsee", {{"rank", 2}, {"num_sparse", 5}, {"rounds", 4}});
  EXPECT_EQ(places_of(*bench, 6).size(), 5u);
}

TEST(Dsee, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = bench_of(5, 6, {{"rank", 2}, {"num_sparse", 7}});
  bench->disturb();
  const Tensor probe = MethodBench::draw("probe", {5, 6});
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
    expect_gradient(entry.second, [&] { return (bench->folded(kSite).weight * probe).sum(); });
}

TEST(Dsee, TrainsTheLowRankPartAndTheFreeEntries) {
  EXPECT_EQ(bench_of(5, 6, {{"rank", 2}, {"num_sparse", 7}})->trained(), 2 * 11 + 7);
  const std::vector<Site> sites = blocks_of(12, 768, 768, {"self.q", "self.v"});
  // BERT-base: r = 16 without free entries, and r = 8 with 64 of them.
  EXPECT_EQ(formula_of("dsee", {{"num_sparse", 0}}, sites), 589824);
  EXPECT_EQ(formula_of("dsee", {{"rank", 8}}, sites), 294912 + 1536);
}

TEST(Dsee, ChoicesThatCannotBeMadeAreRefused) {
  EXPECT_EQ(MethodBench::error_of("dsee", {{"rank", 2}, {"num_sparse", 37}}),
            "dsee: num_sparse 37 at enc.0.self.q is more than the 36 entries of the matrix [6, 6]; "
            "give at most that many");
  EXPECT_EQ(MethodBench::error_of("dsee", {{"num_sparse", 0}, {"sparse_method", "omp"}}),
            "test: test.sparse_method: num_sparse is 0, so there are no entries to choose; leave "
            "sparse_method out or give num_sparse");
  EXPECT_EQ(MethodBench::error_of("dsee", {{"rank", 7}}),
            "dsee: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at most "
            "6");
}

}  // namespace dsee_test
}  // namespace attune
