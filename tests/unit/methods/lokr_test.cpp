#include "method_bench.h"

namespace attune {
namespace lokr_test {

/// One projection of a given shape with LoKr.
std::unique_ptr<MethodBench> lokr(int64_t out, int64_t in, Json options) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection("enc.0.self.q", out, in);
  bench->attach("lokr", options);
  return bench;
}

Tensor factor(const MethodBench& bench, const std::string& name) {
  const std::string key = "enc.0.self.q/" + name;
  if (bench.parameters.count(key) > 0) return bench.parameter_of(key);
  return naive_product(bench.parameter_of(key + "_a"), bench.parameter_of(key + "_b"));
}

std::vector<int64_t> shape(const MethodBench& bench, const std::string& name) {
  const std::string key = "enc.0.self.q/" + name;
  return bench.parameters.count(key) > 0 ? bench.parameters.at(key).sizes().vec()
                                         : std::vector<int64_t>{};
}

using Shape = std::vector<int64_t>;

/// Element ((i1, i2), (j1, j2)) of the update is scale w1[i1, j1] w2[i2, j2].
void check_update(MethodBench& bench, double scale) {
  bench.disturb();
  const Tensor w1 = factor(bench, "w1"), w2 = factor(bench, "w2");
  const Tensor base = bench.weight_of("enc.0.self.q"), got = bench.folded("enc.0.self.q").weight;
  const int64_t rows = w2.size(0), columns = w2.size(1);
  for (int64_t i = 0; i < base.size(0); ++i)
    for (int64_t j = 0; j < base.size(1); ++j)
      EXPECT_NEAR(
          at2(got, i, j),
          at2(base, i, j) + scale * at2(w1, i / rows, j / columns) * at2(w2, i % rows, j % columns),
          1e-12);
}

TEST(Lokr, AddsAKroneckerProductWithALowRankSecondFactor) {
  const std::unique_ptr<MethodBench> bench = lokr(12, 20, {{"rank", 2}, {"alpha", 6}});
  EXPECT_EQ(shape(*bench, "w1"), (Shape{3, 4}));  // 12 = 3 * 4, 20 = 4 * 5
  EXPECT_EQ(shape(*bench, "w2_a"), (Shape{4, 2}));
  EXPECT_EQ(shape(*bench, "w2_b"), (Shape{2, 5}));
  check_update(*bench, 3);
}

TEST(Lokr, ALargeRankKeepsTheSecondFactorWhole) {
  const std::unique_ptr<MethodBench> bench = lokr(12, 20, {{"rank", 3}, {"alpha", 6}});
  EXPECT_EQ(shape(*bench, "w2"), (Shape{4, 5}));
  EXPECT_EQ(bench->trained(), 3 * 4 + 4 * 5);
  check_update(*bench, 2);
}

TEST(Lokr, BothFactorsMayBeLowRank) {
  const std::unique_ptr<MethodBench> bench =
      lokr(12, 20, {{"rank", 1}, {"alpha", 6}, {"decompose_both", true}});
  EXPECT_EQ(shape(*bench, "w1_a"), (Shape{3, 1}));
  EXPECT_EQ(shape(*bench, "w1_b"), (Shape{1, 4}));
  EXPECT_EQ(bench->trained(), (3 + 4) + (4 + 5));
  check_update(*bench, 6);
}

TEST(Lokr, TheDecompositionFactorComesFirstWhereItDivides) {
  const std::unique_ptr<MethodBench> bench =
      lokr(16, 10, {{"rank", 1}, {"alpha", 1}, {"decompose_factor", 8}});
  EXPECT_EQ(shape(*bench, "w1"), (Shape{8, 2}));  // 16 = 8 * 2; 10 = 2 * 5, as 8 does not divide
  EXPECT_EQ(shape(*bench, "w2"), (Shape{}));
  EXPECT_EQ(shape(*bench, "w2_a"), (Shape{2, 1}));
  check_update(*bench, 1);
}

TEST(Lokr, APrimeSideHasAFactorOfOne) {
  const std::unique_ptr<MethodBench> bench = lokr(13, 6, {{"rank", 6}, {"alpha", 6}});
  EXPECT_EQ(shape(*bench, "w1"), (Shape{1, 2}));
  EXPECT_EQ(shape(*bench, "w2_a"), (Shape{13, 6}));
  check_update(*bench, 1);
}

TEST(Lokr, BeginsAtTheBaseWithEitherInitialisation) {
  for (const std::string init : {"default", "lycoris"}) {
    for (const bool both : {false, true}) {
      const std::unique_ptr<MethodBench> bench =
          lokr(12, 20, {{"rank", 1}, {"init", init}, {"decompose_both", both}});
      EXPECT_EQ(difference(bench->folded("enc.0.self.q").weight, bench->weight_of("enc.0.self.q")),
                0);
      const std::string zero = init == "lycoris" ? "w2_b" : both ? "w1_a" : "w1";
      for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
        EXPECT_EQ(entry.second.abs().max().item<double>() == 0,
                  entry.first == "enc.0.self.q/" + zero)
            << entry.first;
    }
  }
}

TEST(Lokr, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench =
      lokr(12, 20, {{"rank", 1}, {"alpha", 6}, {"decompose_both", true}});
  bench->disturb();
  const Tensor c = MethodBench::draw("c", {12, 20});
  for (const char* name : {"w1_a", "w1_b", "w2_a", "w2_b"})
    expect_gradient(bench->parameter_of(std::string("enc.0.self.q/") + name),
                    [&] { return (bench->folded("enc.0.self.q").weight * c).sum(); });
}

TEST(Lokr, RankDropoutLeavesRowsOutAndScalesOnlyWhenAsked) {
  for (const bool rescale : {false, true}) {
    const std::unique_ptr<MethodBench> bench =
        lokr(400, 6,
             {{"rank", 2}, {"alpha", 2}, {"rank_dropout", 0.25}, {"rank_dropout_scale", rescale}});
    bench->disturb();
    const Tensor base = bench->weight_of("enc.0.self.q");
    const Tensor whole = bench->folded("enc.0.self.q").weight - base;
    Pass pass;
    pass.training = true;
    const Tensor delta = bench->folded("enc.0.self.q", pass).weight - base;
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < 400; ++i)
      if (delta.select(0, i).abs().max().item<double>() > 1e-9) kept.push_back(i);
    EXPECT_NEAR(static_cast<double>(kept.size()), 300, 40);
    const double factor = rescale ? 400.0 / static_cast<double>(kept.size()) : 1.0;
    for (const int64_t i : kept)
      EXPECT_LE(difference(delta.select(0, i), whole.select(0, i) * factor), 1e-10);
  }
}

TEST(Lokr, TheFormulaCountsBothFactors) {
  for (const Json& options : {Json{{"rank", 2}}, Json{{"rank", 1}, {"decompose_both", true}},
                              Json{{"rank", 4}, {"decompose_factor", 2}}}) {
    const std::unique_ptr<MethodBench> bench = lokr(12, 20, options);
    EXPECT_EQ(bench->formula("lokr", {"enc.0.self.q"}), bench->trained()) << options.dump();
  }
}

TEST(Lokr, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("lokr", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("lokr", {{"rank", 7}}),
            "lokr: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at most "
            "6");
}

}  // namespace lokr_test
}  // namespace attune
