// Prefix tuning and what stands behind UniPELT's and the mixture's gates.
#include "method_bench.h"
#include "methods/sequences.h"

namespace attune {
namespace prefix_test {

std::unique_ptr<MethodBench> bench_with_attention() {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  for (const std::string block : {"enc.0.", "enc.1."}) {
    bench->flow(block + "self.in", SiteKind::Rows, 6);
    bench->flow(block + "self.kv", SiteKind::KeyValue, 6, 2);
    bench->flow(block + "ffn.in", SiteKind::Rows, 6);
    bench->flow(block + "ffn.out", SiteKind::Rows, 6);
  }
  return bench;
}

const Extend& prefix_of(const MethodBench& bench, const std::string& site) {
  return std::get<Extend>(*bench.edits_at(site).back());
}

Tensor product_of(const Tensor& a, const Tensor& b) {
  return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1);
}

TEST(Prefix, DirectKeysAndValuesAreTwoTimesLengthTimesWidthASite) {
  const std::unique_ptr<MethodBench> bench = bench_with_attention();
  bench->attach("prefix", Json{{"length", 5}});
  EXPECT_EQ(bench->trained(), 2 * 5 * 6 * 2);
  EXPECT_EQ(bench->formula("prefix", {"enc.0.self.kv", "enc.1.self.kv"}), bench->trained());
  EXPECT_FALSE(prefix_of(*bench, "enc.0.self.kv").shift);
}

TEST(Prefix, TheNetworkMakesKeysThenValuesOfEachSiteInTurn) {
  const std::unique_ptr<MethodBench> bench = bench_with_attention();
  bench->attach("prefix", Json{{"length", 3}, {"projection", true}, {"hidden", 4}});
  const auto p = [&](const std::string& name) {
    return bench->parameters.at("shared/enc.self." + name).detach();
  };
  const Tensor all =
      product_of((product_of(p("embedding"), p("in_weight").t()) + p("in_bias")).tanh(),
                 p("out_weight").t()) +
      p("out_bias");
  int64_t column = 0;
  for (const char* site : {"enc.0.self.kv", "enc.1.self.kv"}) {
    for (const Tensor& made : {prefix_of(*bench, site).keys, prefix_of(*bench, site).values}) {
      EXPECT_LE((made.detach() - all.narrow(1, column, 6)).abs().max().item<double>(), 1e-14);
      column += 6;
    }
  }
  EXPECT_EQ(bench->trained(), 3 * 6 + 4 * 7 + 24 * 5);
  EXPECT_EQ(bench->formula("prefix", {"enc.0.self.kv", "enc.1.self.kv"}), bench->trained());
}

TEST(Mam, KeysAndValuesTrainedThemselvesTakeLargerStepsThanTheAdapter) {
  const auto scale_of = [](Json options, const std::string& name) {
    options.update(Json{{"prefix_length", 2}, {"hidden", 4}, {"size", 3}});
    const std::unique_ptr<MethodBench> bench = bench_with_attention();
    bench->attach("mam", options);
    return bench->learns.at(name).lr_scale;
  };
  const std::string keys = "enc.0.self.kv/keys";
  EXPECT_EQ(scale_of({{"projection", false}}, keys), 30);
  EXPECT_EQ(scale_of({{"projection", false}, {"prefix_lr_scale", 7}}, keys), 7);
  EXPECT_EQ(scale_of({{"projection", false}}, "enc.0.ffn.out/down"), 1);
  for (const char* part : {"embedding", "in_weight", "out_bias"})
    EXPECT_EQ(scale_of({{"prefix_lr_scale", 5}}, std::string("shared/enc.self.") + part), 5);
  EXPECT_EQ(scale_of(Json::object(), "shared/enc.self.embedding"), 1);
}

TEST(SequenceGate, IsTheMeanOfTheSigmoidsOfASequence) {
  const Tensor x = at::randn({7, 6}, at::kDouble), w = at::randn({1, 6}, at::kDouble),
               b = at::randn({1}, at::kDouble);
  const RowIndex rows = RowIndex::from_lengths({3, 4});
  const Tensor gate = sequence_gate(x, w, b, rows);
  for (int64_t s = 0; s < 2; ++s) {
    double sum = 0;
    for (int64_t r = rows.begin(s); r < rows.end(s); ++r)
      sum += 1 / (1 + std::exp(-((x[r] * w[0]).sum() + b[0]).item<double>()));
    EXPECT_NEAR(gate[s][0].item<double>(), sum / static_cast<double>(rows.length(s)), 1e-14);
  }
}

TEST(UniPelt, HasThePartsThatHaveASizeAndAGateForEach) {
  const std::unique_ptr<MethodBench> bench = bench_with_attention();
  bench->attach("unipelt", Json{{"prefix_length", 2}, {"rank", 3}, {"adapter_size", 4}});
  const int64_t gate = 6 + 1;
  const int64_t block = 2 * 2 * 6 + gate + 2 * (3 * 12 + gate) + (2 * 4 * 6 + 4 + 6) + gate;
  EXPECT_EQ(bench->trained(), 2 * block);
  EXPECT_EQ(bench->formula("unipelt", {"enc.0.self.kv", "enc.0.self.in", "enc.0.self.q",
                                       "enc.0.self.v", "enc.0.ffn.in", "enc.0.ffn.out"}),
            block);
  EXPECT_NE(
      MethodBench::error_of("unipelt", Json{{"prefix_length", 0}, {"rank", 0}, {"adapter_size", 0}})
          .find("at least one of the three"),
      std::string::npos);
}

TEST(UniPelt, TheLowRankUpdateIsMultipliedByTheGateOfItsInput) {
  const std::unique_ptr<MethodBench> bench = bench_with_attention();
  bench->attach("unipelt", Json{{"prefix_length", 0}, {"rank", 2}, {"adapter_size", 0}});
  const LowRank& edit = std::get<LowRank>(*bench->edits_at("enc.0.self.q").back());
  const Tensor x = at::randn({4, 6}, at::kDouble);
  const RowIndex rows = RowIndex::from_lengths({1, 3});
  const std::map<std::string, Tensor> reads;
  const Pass pass;
  const Tensor by = edit.gate(View{x, rows, reads, pass, Tensor(), 0});
  const Tensor expected = sequence_gate(x, bench->parameters.at("enc.0.self.q/gate_weight"),
                                        bench->parameters.at("enc.0.self.q/gate_bias"), rows);
  EXPECT_TRUE(at::equal(by[0], expected[0]));
  for (int64_t r = 1; r < 4; ++r) EXPECT_TRUE(at::equal(by[r], expected[1]));
  EXPECT_FALSE(folds(bench->site("enc.0.self.q"), Edit(edit), true));
}

}  // namespace prefix_test
}  // namespace attune
