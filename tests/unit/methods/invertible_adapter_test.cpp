// invertible_adapter: the coupling, its inverse at the output embeddings, counts, errors.
#include "flow_bench.h"

namespace attune {
namespace invertible_adapter_test {

/// An encoder with a head of `outputs` logits over 11 words.
std::unique_ptr<MethodBench> with_head(int64_t outputs, int64_t d = 6) {
  std::unique_ptr<MethodBench> bench = flow_encoder(d);
  bench->flow("head.in", SiteKind::Rows, d);
  bench->flow("logits", SiteKind::Rows, outputs);
  return bench;
}

/// up f(down x + down_bias) + up_bias of the function F or G.
Tensor part(const MethodBench& bench, const std::string& name, const Tensor& x) {
  const auto tensor = [&](const char* which) {
    return bench.parameter_of("enc.embed.out/" + name + which);
  };
  return naive_linear(each(naive_linear(x, tensor("_down"), tensor("_down_bias")), relu),
                      tensor("_up"), tensor("_up_bias"));
}

TEST(InvertibleAdapter, CouplesTheTwoHalves) {
  const std::unique_ptr<MethodBench> bench = with_head(11);
  bench->attach("invertible_adapter", {{"reduction", 1.5}});
  bench->disturb();
  const Tensor x = rows_named("x", 5, 6), e1 = x.narrow(1, 0, 3), e2 = x.narrow(1, 3, 3);
  const Tensor y1 = e1 + part(*bench, "f", e2), y2 = e2 + part(*bench, "g", y1);
  EXPECT_LE(difference(run_site(*bench, "enc.embed.out", x), at::cat({y1, y2}, 1)), 1e-13);
}

TEST(InvertibleAdapter, TheInverseStandsBeforeTheOutputEmbeddings) {
  for (const int64_t d : {6, 7}) {
    const std::unique_ptr<MethodBench> bench = with_head(11, d);
    bench->attach("invertible_adapter", {{"reduction", 1.5}});
    bench->disturb(2.0);
    const Tensor x = rows_named("x", 5, d), y = run_site(*bench, "enc.embed.out", x);
    EXPECT_GT(difference(y, x), 0.5);
    EXPECT_LE(difference(run_site(*bench, "head.in", y), x), 1e-12);
    EXPECT_LE(difference(run_site(*bench, "enc.embed.out", run_site(*bench, "head.in", x)), x),
              1e-12);
  }
}

TEST(InvertibleAdapter, InFloatTheInverseIsExactToRounding) {
  const std::unique_ptr<MethodBench> bench = with_head(11, 64);
  bench->attach("invertible_adapter", Json::object());
  bench->disturb(0.3);
  const Tensor x = rows_named("x", 5, 64).to(at::kFloat);
  // The weights stay double here; the products run in the rows' type.
  const Tensor y = run_site(*bench, "enc.embed.out", x);
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  EXPECT_LE(difference(run_site(*bench, "head.in", y), x), 1e-5);
}

TEST(InvertibleAdapter, WithoutOutputEmbeddingsOnlyTheForwardSideActs) {
  const std::unique_ptr<MethodBench> bench = with_head(3);
  bench->attach("invertible_adapter", Json::object());
  EXPECT_EQ(bench->edits_at("enc.embed.out").size(), 1u);
  EXPECT_TRUE(bench->edits_at("head.in").empty());
}

TEST(InvertibleAdapter, GradientsAreThoseOfCentralDifferences) {
  const std::unique_ptr<MethodBench> bench = with_head(11, 7);
  bench->attach("invertible_adapter", {{"reduction", 1.5}, {"activation", "gelu"}});
  bench->disturb();
  const Tensor x = rows_named("x", 5, 7), weights = rows_named("loss", 5, 7);
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
    expect_gradient(entry.second, [&] {
      return ((run_site(*bench, "enc.embed.out", x) + run_site(*bench, "head.in", x)) * weights)
          .sum();
    });
}

TEST(InvertibleAdapter, TheCountIsThatOfMadX) {
  // 2 ((H/2)(H/4) + H/4 + (H/4)(H/2) + H/2): XLM-R-base 296,064.
  const std::unique_ptr<MethodBench> bench = with_head(11, 768);
  bench->attach("invertible_adapter", Json::object());
  EXPECT_EQ(bench->trained(), 2 * (384 * 192 + 192 + 192 * 384 + 384));
  EXPECT_EQ(bench->trained(), 296064);
  EXPECT_EQ(bench->trained(), bench->formula("invertible_adapter", {"enc.embed.out", "head.in"}));
  const std::unique_ptr<MethodBench> odd = with_head(11, 7);
  odd->attach("invertible_adapter", Json::object());
  EXPECT_EQ(odd->trained(), odd->formula("invertible_adapter", {"enc.embed.out"}));
}

TEST(InvertibleAdapter, ItStartsNearTheIdentityOrExactlyThere) {
  const Tensor x = rows_named("x", 5, 6);
  const auto moved = [&](const char* init) {
    const std::unique_ptr<MethodBench> bench = with_head(3);
    bench->attach("invertible_adapter", {{"init", init}, {"reduction", 1}});
    return difference(run_site(*bench, "enc.embed.out", x), x);
  };
  EXPECT_GT(moved("bert"), 0);
  EXPECT_LT(moved("bert"), 0.05);
  EXPECT_EQ(moved("lora"), 0);
}

TEST(InvertibleAdapter, BadOptionsAreReadableErrors) {
  EXPECT_EQ(flow_error("invertible_adapter", {{"reduction", 4}}),
            "invertible_adapter: reduction 4 leaves no inner feature of the 3 that each half of "
            "enc.embed.out has; give a reduction of at most 3");
  MethodBench bench;
  bench.flow("enc.embed.out", SiteKind::Rows, 6);
  bench.flow("dec.embed.out", SiteKind::Rows, 8);
  try {
    bench.attach("invertible_adapter", Json::object());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "invertible_adapter: enc.embed.out has 6 features and dec.embed.out has 8; one "
              "coupling serves all sites, so choose sites of one width");
  }
}

}  // namespace invertible_adapter_test
}  // namespace attune
