#include <cmath>

#include "method_bench.h"

namespace attune {
namespace vera_test {

const char* const kQ = "enc.0.self.q";
const char* const kUp = "enc.0.ffn.up";
const char* const kDown = "enc.0.ffn.down";

std::unique_ptr<MethodBench> vera(Json options) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  options["sites"] = Json::array({kQ, kUp, kDown});
  bench->attach("vera", options);
  return bench;
}

/// Element (i, j) of the update: b_i sum_k B_ik d_k A_kj, with the first rows and columns of the
/// shared matrices.
void check_update(MethodBench& bench, const std::string& site) {
  const Tensor a = bench.buffers.at("shared/down"), b = bench.buffers.at("shared/up");
  const Tensor d = bench.parameter_of(site + "/d"), scale = bench.parameter_of(site + "/b");
  const Tensor base = bench.weight_of(site), got = bench.folded(site).weight;
  for (int64_t i = 0; i < base.size(0); ++i)
    for (int64_t j = 0; j < base.size(1); ++j) {
      double sum = 0;
      for (int64_t k = 0; k < a.size(0); ++k) sum += at2(b, i, k) * at1(d, k) * at2(a, k, j);
      EXPECT_NEAR(at2(got, i, j), at2(base, i, j) + at1(scale, i) * sum, 1e-11);
    }
}

TEST(Vera, ScalesSharedRandomMatricesByTwoVectors) {
  const std::unique_ptr<MethodBench> bench = vera({{"rank", 3}});
  bench->disturb();
  for (const char* site : {kQ, kUp, kDown}) check_update(*bench, site);
}

TEST(Vera, TheRankMayExceedTheSidesOfTheWeight) {
  const std::unique_ptr<MethodBench> bench = vera({{"rank", 20}});
  bench->disturb();
  EXPECT_EQ(bench->edits_at(kQ).size(), 4u) << "6 + 6 + 6 + 2";
  for (const char* site : {kQ, kUp, kDown}) check_update(*bench, site);
}

TEST(Vera, TheMatricesAreSharedFrozenAndKaimingUniform) {
  const std::unique_ptr<MethodBench> bench = vera({{"rank", 30}});
  EXPECT_EQ(bench->buffers.size(), 2u);
  const Tensor a = bench->buffers.at("shared/down"), b = bench->buffers.at("shared/up");
  EXPECT_EQ(a.sizes(), (at::IntArrayRef{30, 8})) << "the largest input";
  EXPECT_EQ(b.sizes(), (at::IntArrayRef{8, 30})) << "the largest output";
  EXPECT_FALSE(a.requires_grad());
  EXPECT_LE(a.abs().max().item<double>(), std::sqrt(6.0 / 8));
  EXPECT_GT(a.abs().max().item<double>(), 0.95 * std::sqrt(6.0 / 8));
  EXPECT_LE(b.abs().max().item<double>(), std::sqrt(6.0 / 30));
  EXPECT_GT(b.abs().max().item<double>(), 0.95 * std::sqrt(6.0 / 30));
}

TEST(Vera, BeginsAtTheBaseWithItsInnerVectorConstant) {
  const std::unique_ptr<MethodBench> bench = vera({{"rank", 3}, {"d_initial", 0.25}});
  EXPECT_EQ(difference(bench->folded(kUp).weight, bench->weight_of(kUp)), 0);
  EXPECT_EQ(difference(bench->parameter_of("enc.0.ffn.up/d"), at::full({3}, 0.25, at::kDouble)), 0);
  EXPECT_EQ(bench->parameter_of("enc.0.ffn.up/b").abs().max().item<double>(), 0);
}

TEST(Vera, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = vera({{"rank", 7}});
  bench->disturb();
  const Tensor c = MethodBench::draw("c", {8, 6});
  for (const char* name : {"enc.0.ffn.up/d", "enc.0.ffn.up/b"})
    expect_gradient(bench->parameter_of(name),
                    [&] { return (bench->folded(kUp).weight * c).sum(); });
}

TEST(Vera, CountsTwoVectorsASite) {
  const std::unique_ptr<MethodBench> bench = vera({{"rank", 5}});
  EXPECT_EQ(bench->trained(), (6 + 5) + (8 + 5) + (6 + 5));
  EXPECT_EQ(bench->formula("vera", {kQ, kUp, kDown}), bench->trained());
}

TEST(Vera, CountsOfThePaper) {
  // RoBERTa-base, q and v of 12 layers, rank 1024 (table 2): 0.043 M.
  MethodBench bench;
  std::vector<std::string> names;
  for (int layer = 0; layer < 12; ++layer)
    for (const std::string part : {"q", "v"}) {
      names.push_back(format("enc.{}.self.{}", layer, part));
      bench.projection(names.back(), 768, 768);
    }
  bench.attach("vera", {{"rank", 1024}});
  EXPECT_EQ(bench.trained(), 24 * (768 + 1024));
  EXPECT_EQ(bench.formula("vera", names), 43008);
}

TEST(Vera, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("vera", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("vera", {{"rank", 37}}),
            "vera: rank 37 at enc.0.self.q is larger than the number of weights of the matrix [6, "
            "6]; give a rank of at most 36");
}

}  // namespace vera_test
}  // namespace attune
