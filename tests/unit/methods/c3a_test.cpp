// C3A: block-circular convolution, its initial values and count.
#include "formula.h"
#include "method_bench.h"

namespace attune {
namespace c3a_test {

const char* const kSite = "enc.0.self.q";

std::unique_ptr<MethodBench> bench_of(int64_t out, int64_t in, const Json& options) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, out, in);
  bench->attach("c3a", options);
  return bench;
}

TEST(C3a, TheUpdateIsTheBlockCircularConvolutionOverTheInputs) {
  const std::unique_ptr<MethodBench> bench = bench_of(8, 12, {{"block_size", 4}});
  bench->disturb();
  const Tensor kernels = bench->parameter_of("enc.0.self.q/kernels");
  EXPECT_EQ(kernels.sizes(), (at::IntArrayRef{2, 3, 4}));
  const Tensor update = bench->folded(kSite).weight - bench->weight_of(kSite);
  const Tensor x = MethodBench::draw("x", {12});
  for (int64_t m = 0; m < 2; ++m)
    for (int64_t t = 0; t < 4; ++t) {
      double expected = 0, found = 0;
      for (int64_t n = 0; n < 3; ++n)
        for (int64_t l = 0; l < 4; ++l)  // the l-th entry of a kernel meets the input l further on
          expected += at1(kernels.select(0, m).select(0, n), l) * at1(x, n * 4 + (t + l) % 4) / 12;
      for (int64_t i = 0; i < 12; ++i) found += at2(update, m * 4 + t, i) * at1(x, i);
      EXPECT_NEAR(found, expected, 1e-14);
    }
}

TEST(C3a, BlocksAreCirculant) {
  const std::unique_ptr<MethodBench> bench = bench_of(5, 5, {{"block_size", 5}});
  bench->disturb();
  const Tensor update = bench->folded(kSite).weight - bench->weight_of(kSite);
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 5; ++j)
      EXPECT_NEAR(at2(update, i, j), at2(update, (i + 1) % 5, (j + 1) % 5), 1e-15);
}

TEST(C3a, InitialRowsFollowTheChosenRule) {
  const std::map<std::string, double> bounds{{"xavier_uniform", std::sqrt(6.0 / (64 + 96))},
                                             {"kaiming_uniform", 1 / std::sqrt(96.0)}};
  for (const std::pair<const std::string, double>& rule : bounds) {
    const std::unique_ptr<MethodBench> bench =
        bench_of(64, 96, {{"block_size", 4}, {"init", rule.first}});
    const Tensor kernels = bench->parameter_of("enc.0.self.q/kernels").detach();
    EXPECT_LE(kernels.abs().max().item<double>(), rule.second);
    EXPECT_GT(kernels.abs().max().item<double>(), 0.98 * rule.second) << rule.first;
  }
  const Tensor normal = bench_of(64, 96, {{"block_size", 4}, {"init", "gaussian"}})
                            ->parameter_of("enc.0.self.q/kernels")
                            .detach();
  EXPECT_NEAR(normal.std().item<double>(), 1, 0.1);
  const std::unique_ptr<MethodBench> zeros = bench_of(6, 6, {{"init", "zeros"}});
  EXPECT_EQ(difference(zeros->folded(kSite).weight, zeros->weight_of(kSite)), 0);
}

TEST(C3a, TheAutomaticBlockIsTheGreatestCommonDivisor) {
  EXPECT_EQ(bench_of(8, 12, Json::object())->parameter_of("enc.0.self.q/kernels").sizes(),
            (at::IntArrayRef{2, 3, 4}));
}

TEST(C3a, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = bench_of(6, 9, {{"block_size", 3}});
  const Tensor probe = MethodBench::draw("probe", {6, 9});
  expect_gradient(bench->parameter_of("enc.0.self.q/kernels"),
                  [&] { return (bench->folded(kSite).weight * probe).sum(); });
}

TEST(C3a, TrainsOneEntryOfEveryBlockRow) {
  EXPECT_EQ(bench_of(8, 12, {{"block_size", 4}})->trained(), 8 * 12 / 4);
  const std::vector<Site> sites = blocks_of(12, 768, 3072, {"self.q", "self.v"});
  // RoBERTa-base: d1 d2 / b with b = 768 / 1 and 768 / 6, 0.018 and 0.11 million in the paper.
  EXPECT_EQ(formula_of("c3a", Json::object(), sites), 18432);
  EXPECT_EQ(formula_of("c3a", {{"block_size", 128}}, sites), 110592);
}

TEST(C3a, ABlockThatDoesNotDivideIsRefused) {
  EXPECT_EQ(MethodBench::error_of("c3a", {{"block_size", 4}}),
            "c3a: block_size 4 does not divide both sides of enc.0.self.q [6, 6]; give a divisor "
            "of 6, or auto for that number");
}

}  // namespace c3a_test
}  // namespace attune
