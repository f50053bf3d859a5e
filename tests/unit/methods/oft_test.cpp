// OFT: skew-symmetric generators, the Cayley transform and its series, blocks, the constraint.
#include "formula.h"
#include "method_bench.h"
#include "methods/rotation.h"
#include "naive_rotation.h"

namespace attune {
namespace oft_test {

const char* const kSite = "enc.0.self.q";

/// W R^T with R block-diagonal, by the triple loop.
Tensor naive_rotated(const Tensor& w, const std::vector<Tensor>& blocks) {
  const int64_t b = blocks[0].size(0);
  Tensor r = at::zeros({w.size(1), w.size(1)}, at::kDouble);
  for (size_t k = 0; k < blocks.size(); ++k) {
    const int64_t from = static_cast<int64_t>(k) * b;
    r.slice(0, from, from + b).slice(1, from, from + b).copy_(blocks[k]);
  }
  return naive_product(w, r.t());
}

std::vector<Tensor> blocks_from(const Tensor& upper, int64_t b, Tensor (*rotation)(const Tensor&)) {
  std::vector<Tensor> blocks;
  for (int64_t k = 0; k < upper.size(0); ++k)
    blocks.push_back(rotation(naive_skew(upper.select(0, k), b)));
  return blocks;
}

std::unique_ptr<MethodBench> attached(const Json& options, double deviation = 0.4) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("oft", options);
  bench->disturb(deviation);
  return bench;
}

TEST(Rotation, TheGeneratorIsSkewSymmetricRowByRow) {
  const Tensor upper = MethodBench::draw("u", {2, 6});
  const Tensor q = skew_symmetric(upper, 4);
  for (int64_t k = 0; k < 2; ++k)
    EXPECT_EQ(difference(q.select(0, k), naive_skew(upper.select(0, k), 4)), 0);
}

TEST(Rotation, TheCayleyTransformIsOrthogonalAndThatOfTheInverse) {
  const Tensor q = skew_symmetric(MethodBench::draw("u", {2, 6}), 4);
  const Tensor r = cayley(q);
  for (int64_t k = 0; k < 2; ++k) {
    const Tensor one = r.select(0, k);
    EXPECT_LT(difference(one, naive_cayley(q.select(0, k))), 1e-12);
    EXPECT_LT(difference(naive_product(one, one.t()), identity(4)), 1e-13);
  }
}

TEST(Oft, TurnsTheInputsByTheExactTransform) {
  const std::unique_ptr<MethodBench> bench = attached({{"block_size", 3}, {"neumann_terms", 0}});
  const Tensor upper = bench->parameter_of("enc.0.self.q/rotation");
  EXPECT_EQ(upper.sizes(), (at::IntArrayRef{2, 3}));
  EXPECT_LT(difference(bench->folded(kSite).weight,
                       naive_rotated(bench->weight_of(kSite), blocks_from(upper, 3, naive_cayley))),
            1e-12);
}

/// I + 2Q + 2Q^2 + 2Q^3 + Q^4, as PEFT sums 5 terms.
Tensor naive_series(const Tensor& q) {
  const Tensor q2 = naive_product(q, q), q3 = naive_product(q2, q), q4 = naive_product(q3, q);
  return identity(q.size(0)) + q * 2 + q2 * 2 + q3 * 2 + q4;
}

TEST(Oft, TheSeriesOfFiveTermsIsThatOfPeft) {
  const std::unique_ptr<MethodBench> bench = attached({{"block_size", 3}});
  const Tensor upper = bench->parameter_of("enc.0.self.q/rotation");
  EXPECT_LT(difference(bench->folded(kSite).weight,
                       naive_rotated(bench->weight_of(kSite), blocks_from(upper, 3, naive_series))),
            1e-12);
}

TEST(Oft, TheSeriesNearsTheTransposedExactTransform) {
  // With 12 terms the series leaves out Q^11 + 2Q^12 + ..., below 1e-9 for these generators.
  const std::unique_ptr<MethodBench> series =
      attached({{"block_size", 3}, {"neumann_terms", 12}}, 0.05);
  const std::unique_ptr<MethodBench> exact =
      attached({{"block_size", 3}, {"neumann_terms", 0}}, -0.05);
  EXPECT_LT(difference(series->folded(kSite).weight, exact->folded(kSite).weight), 1e-9);
}

TEST(Oft, TwoTermsAreTheFirstOrder) {
  const std::unique_ptr<MethodBench> bench = attached({{"block_size", 6}, {"neumann_terms", 2}});
  const Tensor q = naive_skew(bench->parameter_of("enc.0.self.q/rotation").select(0, 0), 6);
  EXPECT_LT(difference(bench->folded(kSite).weight,
                       naive_rotated(bench->weight_of(kSite), {identity(6) + q * 2})),
            1e-13);
}

TEST(Oft, ASharedRotationTurnsEveryBlockAlike) {
  const std::unique_ptr<MethodBench> bench =
      attached({{"blocks", 2}, {"block_share", true}, {"neumann_terms", 0}});
  const Tensor upper = bench->parameter_of("enc.0.self.q/rotation");
  EXPECT_EQ(upper.sizes(), (at::IntArrayRef{1, 3}));
  const Tensor r = naive_cayley(naive_skew(upper.select(0, 0), 3));
  EXPECT_LT(difference(bench->folded(kSite).weight, naive_rotated(bench->weight_of(kSite), {r, r})),
            1e-12);
}

TEST(Oft, StartsAsTheBaseAndKeepsTheBias) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("oft", {{"block_size", 3}});
  const Affine map = bench->folded(kSite);
  EXPECT_EQ(difference(map.weight, bench->weight_of(kSite)), 0);
  EXPECT_EQ(difference(map.bias, bench->bias(bench->site(kSite))), 0);
}

TEST(Oft, TheConstraintShrinksGeneratorsWhereTheyAreUsedAndAfterSteps) {
  const std::unique_ptr<MethodBench> bench =
      attached({{"block_size", 3}, {"coft", true}, {"eps", 0.2}, {"neumann_terms", 0}});
  const std::string name = "enc.0.self.q/rotation";
  Tensor given = MethodBench::draw("given", {2, 3});
  given.select(0, 1).mul_(1e-3);  // within the limit: stays
  bench->set(name, given);
  const double limit = 0.2 / std::sqrt(2.0);
  Tensor expected = given.clone();
  double squares = 0;
  for (int64_t i = 0; i < 3; ++i) squares += 2 * at2(given, 0, i) * at2(given, 0, i);
  ASSERT_GT(std::sqrt(squares), limit);
  expected.select(0, 0).mul_(limit / std::sqrt(squares));
  EXPECT_LT(
      difference(bench->folded(kSite).weight,
                 naive_rotated(bench->weight_of(kSite), blocks_from(expected, 3, naive_cayley))),
      1e-12);
  EXPECT_EQ(difference(bench->parameter_of(name), given), 0);
  bench->tuner().after_step({});
  EXPECT_LT(difference(bench->parameter_of(name), expected), 1e-15);
}

TEST(Oft, GradientsAreThoseOfFiniteDifferences) {
  const Tensor probe = MethodBench::draw("probe", {6, 6});
  for (const int terms : {0, 5}) {
    const std::unique_ptr<MethodBench> bench =
        attached({{"block_size", 3}, {"neumann_terms", terms}});
    expect_gradient(bench->parameter_of("enc.0.self.q/rotation"),
                    [&] { return (bench->folded(kSite).weight * probe).sum(); });
  }
}

TEST(Oft, ABlockSizeThatDoesNotDivideBecomesTheNearestDivisor) {
  for (const std::pair<int, int64_t>& size : {std::pair<int, int64_t>{4, 3}, {5, 6}, {32, 6}}) {
    const std::unique_ptr<MethodBench> bench = attached({{"block_size", size.first}});
    EXPECT_EQ(bench->parameter_of("enc.0.self.q/rotation").size(1),
              size.second * (size.second - 1) / 2);
  }
}

TEST(Oft, TrainsHalfABlockSquaredForEveryBlock) {
  const std::unique_ptr<MethodBench> bench = attached({{"block_size", 3}});
  EXPECT_EQ(bench->trained(), 4 * 2 * 3);
  const std::vector<Site> sites = blocks_of(12, 768, 3072, {"self.q", "self.v"});
  EXPECT_EQ(formula_of("oft", Json::object(), sites), 24 * (768 / 32) * (32 * 31 / 2));
  EXPECT_EQ(formula_of("oft", {{"blocks", 8}, {"block_share", true}}, sites), 24 * (96 * 95 / 2));
}

TEST(Oft, OptionsThatMakeNoRotationAreRefused) {
  EXPECT_EQ(MethodBench::error_of("oft", {{"blocks", 2}, {"block_size", 3}}),
            "test: test.blocks: oft takes blocks or block_size, not both: their product is the "
            "number of inputs");
  EXPECT_EQ(MethodBench::error_of("oft", {{"neumann_terms", 1}}),
            "test: test.neumann_terms: a Neumann series of 1 term is the identity and trains "
            "nothing; give 2 or more, or 0 for the exact transform");
  EXPECT_EQ(MethodBench::error_of("oft", {{"blocks", 6}}),
            "oft: at enc.0.self.q the blocks have 1 row, which leaves nothing to turn; give fewer "
            "blocks than its 6 inputs, or block_size of at least 2");
}

}  // namespace oft_test
}  // namespace attune
