// compacter: sums of Kronecker products, sharing, counts, errors.
#include "flow_bench.h"

namespace attune {
namespace compacter_test {

const std::vector<std::string> kCompacterSites{"enc.0.self.out", "enc.0.ffn.out", "enc.1.self.out",
                                               "enc.1.ffn.out"};
const std::string kCompacterSite = "enc.1.ffn.out";

/// W[a p + c, b q + e] = sum_i rule[i, a, b] block_i[c, e], entry by entry.
Tensor naive_weight(const MethodBench& bench, const std::string& name, bool shared, int64_t out,
                    int64_t in) {
  const std::string at = kCompacterSite + "/" + name;
  const Tensor rule = bench.parameter_of(shared ? "shared/rule" : at + "_rule").detach();
  const bool whole = bench.parameters.count(at) > 0;
  const Tensor left = bench.parameter_of(whole ? at : at + "_left").detach();
  const int64_t n = rule.size(0), p = out / n, q = in / n;
  Tensor weight = at::zeros({out, in}, at::kDouble);
  for (int64_t i = 0; i < n; ++i) {
    const Tensor block =
        whole ? left[i] : naive_product(left[i], bench.parameter_of(at + "_right").detach()[i]);
    for (int64_t row = 0; row < out; ++row)
      for (int64_t column = 0; column < in; ++column)
        weight.index({row, column})
            .add_(rule[i].index({row / p, column / q}).item<double>() *
                  at2(block, row % p, column % q));
  }
  return weight;
}

void check(const Json& options, int64_t size, int64_t d = 12) {
  SCOPED_TRACE(options.dump());
  const std::unique_ptr<MethodBench> bench = flow_encoder(d, 3);
  Tuner& tuner = bench->attach("compacter", options);
  EXPECT_EQ(bench->trained(), bench->formula("compacter", kCompacterSites));
  bench->disturb();
  tuner.prepare({});
  const bool shared = options.value("share_rule", true);
  const Tensor down = naive_weight(*bench, "down", shared, size, d),
               up = naive_weight(*bench, "up", shared, d, size);
  const Tensor h = rows_named("h", 5, d);
  const Tensor inner =
      each(naive_linear(h, down, bench->parameter_of(kCompacterSite + "/down_bias")), gelu);
  EXPECT_LE(
      difference(run_site(*bench, kCompacterSite, h),
                 h + naive_linear(inner, up, bench->parameter_of(kCompacterSite + "/up_bias"))),
      1e-12);
  const Tensor weights = rows_named("loss", 5, d);
  const auto loss = [&] {
    tuner.prepare({});
    return (run_site(*bench, kCompacterSite, h) * weights).sum();
  };
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
    if (starts_with(entry.first, kCompacterSite + "/") || starts_with(entry.first, "shared/"))
      expect_gradient(entry.second, loss);
}

TEST(Compacter, ProjectionsAreSumsOfKroneckerProducts) {
  check({{"divisions", 2}, {"size", 4}}, 4);
  check({{"divisions", 3}, {"size", 6}, {"rank", 2}}, 6);
  check({{"divisions", 2}, {"size", 4}, {"share_rule", false}}, 4);
  check({{"divisions", 2}, {"size", 4}, {"rank", 0}}, 4);
  check({{"divisions", 1}, {"size", 2}, {"rank", 1}, {"share_rule", false}}, 2);
}

TEST(Compacter, OneRuleServesEveryProjectionOfEveryLayer) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(12);
  bench->attach("compacter", {{"divisions", 4}, {"size", 4}});
  int rules = 0;
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
    rules += ends_with(entry.first, "rule") ? 1 : 0;
  EXPECT_EQ(rules, 1);
  EXPECT_EQ(bench->parameter_of("shared/rule").sizes(), (std::vector<int64_t>{4, 4, 4}));
}

TEST(Compacter, TheCountIsThatOfThePaper) {
  // 4 L (k + d) + n^3 for the projections, here L = 2; biases add 2 L (k + d).
  const std::unique_ptr<MethodBench> bench = flow_encoder(768, 12);
  bench->attach("compacter", {{"divisions", 4}, {"size", 24}});
  EXPECT_EQ(bench->trained(), 4 * 2 * (24 + 768) + 64 + 2 * 2 * (24 + 768));
  EXPECT_EQ(bench->trained(), bench->formula("compacter", kCompacterSites));
}

TEST(Compacter, ItStartsNearTheIdentity) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(12);
  bench->attach("compacter", {{"divisions", 2}, {"size", 4}});
  const Tensor h = rows_named("h", 5, 12);
  const double moved = difference(run_site(*bench, kCompacterSite, h), h);
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, 0.05);
}

TEST(Compacter, SizesThatDoNotDivideAreReadableErrors) {
  EXPECT_EQ(flow_error("compacter", {{"divisions", 4}, {"size", 4}}),
            "compacter: divisions 4 at enc.0.self.out must divide the 6 features of the rows and "
            "the inner size 4; choose another size, or divisions that divide both");
  EXPECT_EQ(flow_error("compacter", {{"divisions", 2}, {"size", 4}, {"rank", 9}}),
            "compacter: rank 9 at enc.0.self.out is larger than the blocks [2, 3]; give a rank of "
            "at most 2, or 0 for blocks that are not factorised");
}

}  // namespace compacter_test
}  // namespace attune
