// BOFT: butterfly factors B_i = P_i D_i P_i^T, their product, the output scale, dropout of blocks.
#include "formula.h"
#include "method_bench.h"
#include "naive_rotation.h"

namespace attune {
namespace boft_test {

const char* const kSite = "enc.0.self.q";

std::unique_ptr<MethodBench> bench_of(int64_t in, int64_t out, const Json& options,
                                      double deviation = 0.4) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, out, in);
  bench->attach("boft", options);
  if (deviation > 0) bench->disturb(deviation);
  return bench;
}

/// P_i: row r of the group of block * 2^i features takes the input that dealing out chunks of half
/// a block, even ones first, puts there.
Tensor naive_permutation(int64_t in, int64_t block, int64_t factor) {
  Tensor p = at::zeros({in, in}, at::kDouble);
  const int64_t chunk = block / 2, chunks = int64_t{2} << factor;
  for (int64_t r = 0; r < in; ++r) {
    const int64_t group = r / (chunk * chunks), inside = r % (chunk * chunks);
    const int64_t place = inside / chunk;
    const int64_t source = place < chunks / 2 ? 2 * place : 2 * (place - chunks / 2) + 1;
    p.index({r, group * chunk * chunks + source * chunk + inside % chunk}).fill_(1);
  }
  return p;
}

/// R = B_m ... B_1 as dense matrices.
Tensor naive_butterfly(const Tensor& upper, int64_t in, int64_t block) {
  Tensor r = identity(in);
  for (int64_t i = 0; i < upper.size(0); ++i) {
    Tensor d = at::zeros({in, in}, at::kDouble);
    for (int64_t k = 0; k < upper.size(1); ++k)
      d.slice(0, k * block, (k + 1) * block)
          .slice(1, k * block, (k + 1) * block)
          .copy_(naive_cayley(naive_skew(upper.select(0, i).select(0, k), block)));
    const Tensor p = naive_permutation(in, block, i);
    r = naive_product(naive_product(naive_product(p, d), p.t()), r);
  }
  return r;
}

void check_against_naive(int64_t in, int64_t block, int64_t factors) {
  const std::unique_ptr<MethodBench> bench =
      bench_of(in, 5, {{"block_size", block}, {"factors", factors}});
  const Tensor r = naive_butterfly(bench->parameter_of("enc.0.self.q/rotation"), in, block);
  EXPECT_LT(difference(naive_product(r, r.t()), identity(in)), 1e-12);
  const Tensor scale = bench->parameter_of("enc.0.self.q/scale").detach();
  const Affine map = bench->folded(kSite);
  EXPECT_LT(difference(map.weight,
                       naive_product(bench->weight_of(kSite), r.t()) * scale.reshape({-1, 1})),
            1e-12);
  EXPECT_EQ(difference(map.bias, bench->bias(bench->site(kSite))), 0);
}

TEST(Boft, OneFactorIsBlockDiagonal) {
  check_against_naive(9, 3, 1);
}

TEST(Boft, FactorsMultiplyThroughTheirPermutations) {
  check_against_naive(8, 4, 2);
  check_against_naive(16, 2, 3);
  check_against_naive(24, 2, 3);
}

TEST(Boft, EveryOutputReadsBlockTimesTwoToTheFactorsInputs) {
  const Tensor upper = MethodBench::draw("u", {3, 8, 1});
  const Tensor r = naive_butterfly(upper, 16, 2);
  EXPECT_EQ((r.abs() > 1e-12).sum(1).min().item<int64_t>(), 2 * 4);
  EXPECT_EQ((r.abs() > 1e-12).sum(1).max().item<int64_t>(), 2 * 4);
  // The method agrees: a weight of unit vectors shows R.
  const std::unique_ptr<MethodBench> bench = bench_of(16, 16, {{"block_size", 2}, {"factors", 3}});
  bench->weight_of(kSite).copy_(identity(16));
  bench->set("enc.0.self.q/rotation", upper);
  bench->set("enc.0.self.q/scale", at::ones({16}, at::kDouble));
  EXPECT_LT(difference(bench->folded(kSite).weight, r.t()), 1e-13);
}

TEST(Boft, StartsAsTheBase) {
  const std::unique_ptr<MethodBench> bench = bench_of(8, 5, {{"block_size", 2}, {"factors", 3}}, 0);
  EXPECT_EQ(difference(bench->folded(kSite).weight, bench->weight_of(kSite)), 0);
  EXPECT_EQ(bench->learns.at("enc.0.self.q/scale").weight_decay, 0);
}

TEST(Boft, DropoutMakesAShareOfOneFactorsBlocksTheIdentityInTrainingOnly) {
  const std::unique_ptr<MethodBench> bench =
      bench_of(16, 16, {{"block_size", 2}, {"factors", 3}, {"dropout", 0.3}});
  bench->weight_of(kSite).copy_(identity(16));
  bench->set("enc.0.self.q/scale", at::ones({16}, at::kDouble));
  const Tensor upper = bench->parameter_of("enc.0.self.q/rotation");
  const Tensor whole = naive_butterfly(upper, 16, 2);
  EXPECT_LT(difference(bench->folded(kSite).weight, whole.t()), 1e-13);
  Pass pass;
  pass.training = true;
  std::set<std::string> seen;
  for (pass.step = 0; pass.step < 8; ++pass.step) {
    const Tensor found = bench->folded(kSite, pass).weight;
    EXPECT_EQ(difference(bench->folded(kSite, pass).weight, found), 0) << "same step, same blocks";
    // floor(0.3 * 8) = 2 blocks of one factor: found by trying all 3 * C(8, 2).
    int matches = 0;
    for (int64_t f = 0; f < 3; ++f)
      for (int64_t a = 0; a < 8; ++a)
        for (int64_t b = a + 1; b < 8; ++b) {
          Tensor kept = upper.detach().clone();
          kept.select(0, f).select(0, a).zero_();
          kept.select(0, f).select(0, b).zero_();
          if (difference(naive_butterfly(kept, 16, 2).t(), found) > 1e-12) continue;
          ++matches;
          seen.insert(format("{} {} {}", f, a, b));
        }
    EXPECT_EQ(matches, 1) << "step " << pass.step;
  }
  EXPECT_GT(seen.size(), 4u);
}

TEST(Boft, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = bench_of(8, 3, {{"block_size", 4}, {"factors", 2}});
  const Tensor probe = MethodBench::draw("probe", {3, 8});
  for (const char* name : {"enc.0.self.q/rotation", "enc.0.self.q/scale"})
    expect_gradient(bench->parameter_of(name),
                    [&] { return (bench->folded(kSite).weight * probe).sum(); });
}

TEST(Boft, TrainsHalfTheBlockRowsForEveryFeatureAndFactor) {
  EXPECT_EQ(bench_of(8, 3, {{"block_size", 4}, {"factors", 2}})->trained(), 2 * 8 * 3 / 2 + 3);
  const std::vector<Site> sites = blocks_of(12, 768, 3072, {"self.q", "self.v"});
  // m d (b - 1) / 2 and the scale, each of 24 projections.
  EXPECT_EQ(formula_of("boft", {{"block_size", 8}, {"factors", 4}}, sites),
            24 * (4 * 768 * 7 / 2 + 768));
}

TEST(Boft, SizesThatDoNotSplitAreRefused) {
  EXPECT_EQ(MethodBench::error_of("boft", {{"blocks", 2}, {"block_size", 3}}),
            "test: test.blocks: boft takes blocks or block_size, not both: their product is the "
            "number of inputs");
  EXPECT_EQ(MethodBench::error_of("boft", {{"block_size", 4}}),
            "boft: the 6 inputs of enc.0.self.q do not split into blocks of 4 rows (at least 2); "
            "give a block_size that divides them");
  EXPECT_EQ(MethodBench::error_of("boft", {{"block_size", 2}, {"factors", 2}}),
            "boft: 2 butterfly factors over blocks of 2 rows need an even block size and inputs "
            "that 4 divides; enc.0.self.q has 6. Give fewer factors or another block_size");
}

}  // namespace boft_test
}  // namespace attune
