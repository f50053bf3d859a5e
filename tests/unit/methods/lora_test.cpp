#include <cmath>

#include "method_bench.h"

namespace attune {
namespace lora_test {

const char* const kQ = "enc.0.self.q";
const char* const kUp = "enc.0.ffn.up";

std::unique_ptr<MethodBench> lora(Json options, int64_t d = 6, int64_t f = 8) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(d, f);
  bench->attach("lora", options);
  return bench;
}

/// max |a - b| / max |b|.
double relative(const Tensor& a, const Tensor& b) {
  return difference(a, b) / b.detach().abs().max().item<double>();
}

TEST(Lora, AddsAlphaOverRankTimesUpDown) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 3}, {"alpha", 7}, {"sites", {"enc.0.ffn.up"}}});
  bench->disturb();
  const Tensor update = naive_product(bench->parameter_of("enc.0.ffn.up/up"),
                                      bench->parameter_of("enc.0.ffn.up/down"));
  EXPECT_LE(difference(bench->folded(kUp).weight, bench->weight_of(kUp) + update * (7.0 / 3.0)),
            1e-12);
}

TEST(Lora, TheRankStabilisedScaleDividesByTheRoot) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 4}, {"alpha", 6}, {"rslora", true}, {"sites", kQ}});
  EXPECT_DOUBLE_EQ(std::get<LowRank>(*bench->edits_at(kQ)[0]).scale, 6.0 / 2.0);
}

/// y += s (B A x + b), b from zero.
TEST(Lora, ABiasOfBIsScaledWithIt) {
  const Json options = {{"rank", 2}, {"alpha", 6}, {"up_bias", true}, {"sites", {kUp}}};
  const std::unique_ptr<MethodBench> start = lora(options), bench = lora(options);
  EXPECT_EQ(
      difference(start->folded(kUp).bias, lora({{"rank", 2}, {"sites", {kQ}}})->folded(kUp).bias),
      0);
  bench->disturb();
  const Tensor bias = bench->parameter_of("enc.0.ffn.up/up_bias");
  EXPECT_LE(difference(bench->folded(kUp).bias, start->folded(kUp).bias + bias * 3), 1e-12);
}

TEST(Lora, ABeginsKaimingUniformAndBZero) {
  const std::unique_ptr<MethodBench> bench = lora({{"rank", 16}, {"sites", kQ}}, 64, 64);
  const Tensor down = bench->parameter_of("enc.0.self.q/down");
  EXPECT_LE(down.abs().max().item<double>(), 1.0 / 8);
  EXPECT_GT(down.abs().max().item<double>(), 0.95 / 8);
  EXPECT_NEAR(down.detach().std().item<double>(), 1.0 / 8 / std::sqrt(3.0), 0.005);
  EXPECT_EQ(bench->parameter_of("enc.0.self.q/up").abs().max().item<double>(), 0);
  EXPECT_EQ(difference(bench->folded(kQ).weight, bench->weight_of(kQ)), 0);
}

TEST(Lora, GaussianInitHasDeviationOneOverRank) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 16}, {"init", "gaussian"}, {"sites", kQ}}, 64, 64);
  EXPECT_NEAR(bench->parameter_of("enc.0.self.q/down").detach().std().item<double>(), 1.0 / 16,
              0.004);
  EXPECT_EQ(bench->parameter_of("enc.0.self.q/up").abs().max().item<double>(), 0);
}

/// B^T B and A A^T of PiSSA are S / scale, and no other rank-2 matrix is nearer to W.
TEST(Lora, PissaBeginsWithTheLargestSingularDirections) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 2}, {"alpha", 6}, {"init", "pissa"}, {"sites", kUp}});
  const double scale = 3;
  const Tensor w = bench->weight_of(kUp);
  const Tensor down = bench->parameter_of("enc.0.ffn.up/down"),
               up = bench->parameter_of("enc.0.ffn.up/up");
  const Tensor left = naive_product(up.t(), up), right = naive_product(down, down.t());
  EXPECT_LE(difference(left, right), 1e-10);
  EXPECT_LE(std::abs(at2(left, 0, 1)), 1e-10);
  // Singular pairs: W a_k = S_k b_k up to the common factor, so W A^T = B diag(S).
  const Tensor image = naive_product(w, down.t());
  for (int64_t k = 0; k < 2; ++k)
    for (int64_t i = 0; i < 8; ++i)
      EXPECT_NEAR(at2(image, i, k), at2(up, i, k) * at2(left, k, k) * scale, 1e-10);
  // The largest two: what is left has no direction longer than the second (power iteration).
  const Tensor rest = w - naive_product(up, down) * scale;
  Tensor x = MethodBench::draw("x", {6, 1});
  for (int step = 0; step < 200; ++step) {
    x = naive_product(rest.t(), naive_product(rest, x));
    x = x / x.norm();
  }
  EXPECT_LT(naive_product(rest, x).norm().item<double>(), at2(left, 1, 1) * scale);
  EXPECT_LE(relative(bench->folded(kUp).weight, w), 1e-12);
}

TEST(Lora, OloraBeginsWithTheFirstColumnsOfAnOrthonormalBasis) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 2}, {"alpha", 6}, {"init", "olora"}, {"sites", kUp}});
  const Tensor w = bench->weight_of(kUp), up = bench->parameter_of("enc.0.ffn.up/up"),
               down = bench->parameter_of("enc.0.ffn.up/down");
  EXPECT_LE(difference(naive_product(up.t(), up), at::eye(2, at::kDouble)), 1e-12);
  // Gram-Schmidt by hand: the second column of B is w_1 without its part along w_0; R = B^T W.
  const Tensor first = w.select(1, 0) / w.select(1, 0).norm();
  Tensor second = w.select(1, 1) - first * (first * w.select(1, 1)).sum();
  second = second / second.norm();
  EXPECT_NEAR(std::abs((first * up.select(1, 0)).sum().item<double>()), 1, 1e-12);
  EXPECT_NEAR(std::abs((second * up.select(1, 1)).sum().item<double>()), 1, 1e-12);
  EXPECT_LE(difference(naive_product(up.t(), w), down), 1e-12);
  EXPECT_LE(relative(bench->folded(kUp).weight, w), 1e-12);
}

TEST(Lora, AfterPissaTheUpdateIsWhatMovedSinceTheStart) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 2}, {"alpha", 6}, {"init", "pissa"}, {"sites", kUp}});
  const Tensor before = naive_product(bench->parameter_of("enc.0.ffn.up/up"),
                                      bench->parameter_of("enc.0.ffn.up/down"));
  bench->disturb();
  const Tensor after = naive_product(bench->parameter_of("enc.0.ffn.up/up"),
                                     bench->parameter_of("enc.0.ffn.up/down"));
  EXPECT_LE(difference(bench->folded(kUp).weight, bench->weight_of(kUp) + (after - before) * 3.0),
            1e-12);
}

TEST(Lora, LoraPlusRaisesTheRateOfBAlone) {
  const std::unique_ptr<MethodBench> bench = lora({{"lr_ratio", 16}, {"rank", 2}, {"sites", kQ}});
  EXPECT_EQ(bench->learns.at("enc.0.self.q/up").lr_scale, 16);
  EXPECT_EQ(bench->learns.at("enc.0.self.q/down").lr_scale, 1);
}

TEST(Lora, AFrozenAIsSavedButNotTrained) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"freeze_a", true}, {"rank", 2}, {"sites", {kQ, kUp}}});
  EXPECT_EQ(bench->buffers.count("enc.0.self.q/down"), 1u);
  EXPECT_EQ(bench->trained(), 2 * 6 + 2 * 8);
  EXPECT_EQ(bench->formula("lora", {kQ, kUp}), 2 * 6 + 2 * 8);
  EXPECT_GT(bench->buffers.at("enc.0.self.q/down").abs().max().item<double>(), 0.1);
}

TEST(Lora, AnEmbeddingsAIsZeroAndItsBNormal) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 2}, {"lr_ratio", 4}, {"sites", {"*.embed.tok", kQ}}});
  const Tensor down = bench->parameter_of("enc.embed.tok/down"),
               up = bench->parameter_of("enc.embed.tok/up");
  EXPECT_EQ(down.sizes(), (at::IntArrayRef{2, 11}));
  EXPECT_EQ(up.sizes(), (at::IntArrayRef{6, 2}));
  EXPECT_EQ(down.abs().max().item<double>(), 0);
  EXPECT_GT(up.abs().max().item<double>(), 0.5);
  EXPECT_EQ(bench->learns.at("enc.embed.tok/up").lr_scale, 1);
  EXPECT_EQ(bench->trained(), 2 * (11 + 6) + 2 * (6 + 6));
  EXPECT_EQ(bench->formula("lora", {"enc.embed.tok", kQ}), bench->trained());
}

TEST(Lora, AnEmbeddingsRowsGetTheTransposedUpdate) {
  const std::unique_ptr<MethodBench> bench =
      lora({{"rank", 2}, {"alpha", 6}, {"sites", "enc.embed.*"}});
  bench->disturb();
  const Tensor update = naive_product(bench->parameter_of("enc.embed.tok/up"),
                                      bench->parameter_of("enc.embed.tok/down"));
  EXPECT_LE(difference(bench->folded("enc.embed.tok").weight,
                       bench->weight_of("enc.embed.tok") + update.t() * 3.0),
            1e-12);
}

TEST(Lora, AGlobOfEverythingMeansProjections) {
  const std::unique_ptr<MethodBench> bench = lora({{"rank", 1}, {"sites", "*"}});
  EXPECT_TRUE(bench->edits_at("enc.embed.tok").empty());
  EXPECT_EQ(bench->edits.size(), 12u);
}

TEST(Lora, PatternsGiveRankAndStrengthBySite) {
  const std::unique_ptr<MethodBench> bench = lora({{"rank", 2},
                                                   {"alpha", 6},
                                                   {"sites", "enc.0.*"},
                                                   {"rank_pattern", {{"*.self.q", 4}, {"*.q", 1}}},
                                                   {"alpha_pattern", {{"*.ffn.*", 3}}}});
  EXPECT_EQ(bench->parameter_of("enc.0.self.q/down").size(0), 4) << "the first match counts";
  EXPECT_EQ(bench->parameter_of("enc.0.self.v/down").size(0), 2);
  EXPECT_DOUBLE_EQ(std::get<LowRank>(*bench->edits_at(kQ)[0]).scale, 6.0 / 4);
  EXPECT_DOUBLE_EQ(std::get<LowRank>(*bench->edits_at(kUp)[0]).scale, 3.0 / 2);
  EXPECT_EQ(bench->formula("lora", {kQ, kUp}), 4 * 12 + 2 * 14);
}

TEST(Lora, CountsOfThePaper) {
  // RoBERTa-base, q and v of 12 layers, rank 8 (sheet S07): 294,912.
  MethodBench bench;
  std::vector<std::string> names;
  for (int layer = 0; layer < 12; ++layer)
    for (const std::string part : {"q", "v"}) {
      names.push_back(format("enc.{}.self.{}", layer, part));
      bench.projection(names.back(), 768, 768);
    }
  bench.attach("lora");
  EXPECT_EQ(bench.trained(), 294912);
  EXPECT_EQ(bench.formula("lora", names), 294912);
}

TEST(Lora, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("lora", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("lora", {{"rank", 7}}),
            "lora: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at most "
            "6");
  EXPECT_EQ(
      MethodBench::error_of("lora", {{"rank", 2}, {"rank_pattern", {{"*.ffn.*", 3}}}}),
      "lora: the pattern \"*.ffn.*\" of rank_pattern matches none of the chosen sites; near ones "
      "are enc.0.self.q, enc.0.self.v, enc.1.self.q");
  EXPECT_EQ(MethodBench::error_of("lora", {{"rank", 2}, {"rank_pattern", {{"*.q", 0}}}}),
            "test: test.rank_pattern.*.q: 0 is out of range; give at least 1");
  EXPECT_NE(MethodBench::error_of("lora", {{"rank_pattern", {{"*.q", 1.5}}}})
                .find("rank_pattern.*.q: expected an integer"),
            std::string::npos);
  EXPECT_EQ(
      MethodBench::error_of("lora", {{"rank", 2}, {"freeze_a", true}, {"sites", "enc.embed.tok"}}),
      "lora: freeze_a at enc.embed.tok: an embedding's A begins at zero and must train; leave "
      "the table out of sites, or freeze_a");
  EXPECT_EQ(
      MethodBench::error_of("lora", {{"rank", 2}, {"up_bias", true}, {"sites", "enc.embed.tok"}}),
      "lora: up_bias at enc.embed.tok: an embedding's update has none; leave the table out of "
      "sites, or up_bias");
  EXPECT_EQ(
      MethodBench::error_of("lora", {{"rank", 2}, {"init", "pissa"}, {"sites", "enc.embed.tok"}}),
      "lora: init pissa at enc.embed.tok: embeddings have the default initial values only; "
      "leave the table out of sites, or init");
}

}  // namespace lora_test
}  // namespace attune
