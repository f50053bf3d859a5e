#include <cmath>

#include "method_bench.h"

namespace attune {
namespace randlora_test {

const char* const kQ = "enc.0.self.q";
const char* const kUp = "enc.0.ffn.up";
const char* const kDown = "enc.0.ffn.down";

std::unique_ptr<MethodBench> randlora(Json options) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 9);
  options["sites"] = Json::array({kQ, kUp, kDown});
  bench->attach("randlora", options);
  return bench;
}

/// Element of the update on [larger, smaller]: alpha / rank sum over inner pairs of B and A, where
/// the i-th inner column of B is (basis, row) = (i / rank, i % rank) and the i-th inner row of A is
/// (row, basis) = (i / bases, i % bases), as PEFT flattens them.
double element(const MethodBench& bench, const std::string& site, int64_t big, int64_t small,
               int64_t rank, int64_t bases, double scale) {
  const Tensor a = bench.buffers.at("shared/basis_a"), b = bench.buffers.at("shared/basis_b");
  const Tensor lambda = bench.parameter_of(site + "/lambda"),
               gamma = bench.parameter_of(site + "/gamma");
  double sum = 0;
  for (int64_t i = 0; i < rank * bases; ++i)
    sum += b.index({big, i / rank, i % rank}).item<double>() * at2(lambda, i / bases, i % bases) *
           at2(gamma, i % bases, small) * a.index({i / bases, 0, small}).item<double>();
  return scale * sum;
}

void check_update(MethodBench& bench, const std::string& site, int64_t rank, int64_t bases,
                  double scale) {
  const Tensor base = bench.weight_of(site), got = bench.folded(site).weight;
  const bool tall = base.size(0) >= base.size(1);
  for (int64_t i = 0; i < base.size(0); ++i)
    for (int64_t j = 0; j < base.size(1); ++j)
      EXPECT_NEAR(at2(got, i, j) - at2(base, i, j),
                  element(bench, site, tall ? i : j, tall ? j : i, rank, bases, scale), 1e-11)
          << site << " " << i << " " << j;
}

TEST(Randlora, AddsRandomBasesWeightedByTwoDiagonals) {
  for (const double dropout : {0.0, 0.5}) {
    const std::unique_ptr<MethodBench> bench =
        randlora({{"rank", 4}, {"alpha", 6}, {"dropout", dropout}});
    bench->disturb();
    for (const char* site : {kQ, kUp, kDown}) check_update(*bench, site, 4, 2, 1.5);
  }
}

TEST(Randlora, TheBasesReachFullRank) {
  const std::unique_ptr<MethodBench> bench = randlora({{"rank", 2}, {"alpha", 2}});
  bench->disturb();
  const Tensor delta = bench->folded(kUp).weight.detach() - bench->weight_of(kUp);
  EXPECT_GT(at1(std::get<1>(at::linalg_svd(delta, false)), 5), 1e-4);
}

TEST(Randlora, BeginsAtTheBase) {
  const std::unique_ptr<MethodBench> bench = randlora({{"rank", 4}});
  EXPECT_EQ(difference(bench->folded(kUp).weight, bench->weight_of(kUp)), 0);
  EXPECT_EQ(bench->parameter_of("enc.0.ffn.up/lambda").abs().max().item<double>(), 0);
  EXPECT_EQ(
      difference(bench->parameter_of("enc.0.ffn.up/gamma"), at::full({2, 6}, 1.0 / 6, at::kDouble)),
      0);
}

TEST(Randlora, TheBasesAreSharedFrozenAndOfUnitDeviation) {
  for (const std::string bases : {"dense", "sparse", "very_sparse"}) {
    const std::unique_ptr<MethodBench> bench = MethodBench::encoder(64, 100);
    bench->attach("randlora", {{"rank", 8}, {"bases", bases}, {"sites", {"*.q", "*.ffn.*"}}});
    EXPECT_EQ(bench->buffers.size(), 2u);
    const Tensor a = bench->buffers.at("shared/basis_a"), b = bench->buffers.at("shared/basis_b");
    EXPECT_EQ(a.sizes(), (at::IntArrayRef{8, 1, 100})) << "the smaller of the largest sides";
    EXPECT_EQ(b.sizes(), (at::IntArrayRef{100, 13, 8}));
    for (const Tensor& basis : {a, b}) {
      EXPECT_NEAR(basis.std().item<double>(), 1, 1e-12);
      EXPECT_FALSE(basis.requires_grad());
    }
    const double zero = (b == 0).to(at::kDouble).mean().item<double>();
    const double expected = bases == "dense" ? 0 : bases == "sparse" ? 2.0 / 3 : 1 - 1.0 / 10;
    EXPECT_NEAR(zero, expected, 0.02) << bases;
    if (bases != "dense") {
      EXPECT_NEAR((b > 0).to(at::kDouble).mean().item<double>(), (1 - expected) / 2, 0.015);
    }
  }
}

TEST(Randlora, GradientsAreThoseOfFiniteDifferences) {
  for (const double dropout : {0.0, 0.5}) {
    const std::unique_ptr<MethodBench> bench =
        randlora({{"rank", 4}, {"alpha", 6}, {"dropout", dropout}});
    bench->disturb();
    const Tensor c = MethodBench::draw("c", {9, 6});
    for (const char* name : {"enc.0.ffn.up/lambda", "enc.0.ffn.up/gamma"})
      expect_gradient(bench->parameter_of(name),
                      [&] { return (bench->folded(kUp).weight * c).sum(); });
  }
}

TEST(Randlora, CountsTheDiagonals) {
  const std::unique_ptr<MethodBench> bench = randlora({{"rank", 4}});
  EXPECT_EQ(bench->trained(), 3 * 2 * (4 + 6)) << "two bases reach rank 6";
  EXPECT_EQ(bench->formula("randlora", {kQ, kUp, kDown}), bench->trained());
}

TEST(Randlora, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("randlora", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("randlora", {{"rank", 7}}),
            "randlora: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at "
            "most 6");
}

}  // namespace randlora_test
}  // namespace attune
