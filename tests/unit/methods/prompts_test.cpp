// Prompt tuning, P-tuning, decomposed prompts: the rows they put in front.
#include <cmath>

#include "base/log.h"
#include "method_bench.h"
#include "tensor/types.h"

namespace attune {
namespace prompts_test {

std::unique_ptr<MethodBench> bench_with_rows() {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->flow("enc.embed.rows", SiteKind::Rows, 6);
  return bench;
}

const Extend& prompt_of(const MethodBench& bench) {
  return std::get<Extend>(*bench.edits_at("enc.embed.rows").back());
}

Tensor logistic(const Tensor& x) {
  return 1 / (1 + (-x).exp());
}

TEST(Prompt, VocabularyRowsAreRowsOfTheTokenTable) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("prompt", Json{{"length", 4}});
  const Tensor rows = prompt_of(*bench).rows, table = bench->weight(bench->site("enc.embed.tok"));
  ASSERT_EQ(rows.sizes().vec(), (std::vector<int64_t>{4, 6}));
  for (int64_t r = 0; r < 4; ++r)
    EXPECT_EQ((table - rows.detach()[r]).abs().sum(1).min().item<double>(), 0);
  EXPECT_EQ(bench->trained(), 4 * 6);
  EXPECT_EQ(bench->formula("prompt", {"enc.embed.rows"}), 4 * 6);
  EXPECT_FALSE(prompt_of(*bench).pooled);
}

TEST(Prompt, ATextIsRepeatedOrCutToTheLength) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("prompt", Json{{"length", 5}, {"init", "text"}, {"text", "abc"}});
  const Tensor table = bench->weight(bench->site("enc.embed.tok"));
  const char* letters = "abcab";
  for (int64_t r = 0; r < 5; ++r)
    EXPECT_TRUE(at::equal(prompt_of(*bench).rows.detach()[r], table[letters[r] % 11]));
}

TEST(Prompt, RandomRowsAreUniformWithinOneHalf) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("prompt", Json{{"length", 200}, {"init", "random"}});
  const Tensor rows = prompt_of(*bench).rows.detach();
  EXPECT_LE(rows.abs().max().item<double>(), 0.5);
  EXPECT_GT(rows.abs().max().item<double>(), 0.45);
  EXPECT_NEAR(rows.mean().item<double>(), 0, 0.03);
}

TEST(Prompt, InFrontOfPatchesRowsBeginAsPatchesDo) {
  // v = sqrt(6 / (3 * 16 * 16 + d)) for patches of 16 x 16 pixels in three colours.
  MethodBench bench;
  bench.projection("vis.embed.patch", 6, 768);
  bench.flow("vis.embed.out", SiteKind::Rows, 6);
  bench.attach("prompt", Json{{"length", 200}});
  const Tensor rows = std::get<Extend>(*bench.edits_at("vis.embed.out").back()).rows.detach();
  const double v = std::sqrt(6.0 / 774);
  EXPECT_LE(rows.abs().max().item<double>(), v);
  EXPECT_GT(rows.abs().max().item<double>(), 0.95 * v);
}

TEST(DecomposedPrompt, PartsThatCouldNotActAreReadableErrors) {
  const auto error = [](const Json& options) {
    return MethodBench::error_of("decomposed_prompt", options);
  };
  EXPECT_NE(error(Json{{"rank", 0}, {"fusion", "scalar"}})
                .find("fusion: scalar lets the rows in front attend to the update, which rank 0 "
                      "leaves out; give a rank of at least 1, or fusion: none"),
            std::string::npos);
  EXPECT_NE(error(Json{{"length", 0}, {"fusion", "attention"}})
                .find("length 0 leaves no row in front for fusion"),
            std::string::npos);
  EXPECT_NE(
      error(Json{{"length", 0}, {"spaces", 2}}).find("length 0 leaves no row in front for spaces"),
      std::string::npos);
  EXPECT_NE(error(Json{{"gate", "row"}})
                .find("gate: row mixes projections into subspaces, but "
                      "spaces is 0; give spaces (EPT: 4)"),
            std::string::npos);
}

TEST(DecomposedPrompt, TextsLongerThanTheUpdateAreReported) {
  std::vector<std::string> log;
  set_log_sink([&](LogLevel, const std::string& text) { log.push_back(text); });
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("decomposed_prompt", Json{{"rank", 2}, {"max_length", 5}});
  bench->tuner().check({0, 5});
  EXPECT_TRUE(log.empty());
  bench->tuner().check({0, 6});
  set_log_sink(nullptr);
  ASSERT_EQ(log.size(), 1u);
  EXPECT_NE(log[0].find("texts may have 6 tokens (data.max_length), but only the first 5 have an "
                        "update; raise max_length, or lower data.max_length"),
            std::string::npos)
      << log[0];
}

TEST(Prompt, AnEmptyTextAndAPlaceThatIsNoRowsAreErrors) {
  EXPECT_NE(MethodBench::error_of("prompt", Json{{"sites", {"*.self.q"}}})
                .find("none of the sites that *.self.q selects is of kind rows"),
            std::string::npos);
  EXPECT_NE(MethodBench::error_of(
                "prompt", Json{{"sites", {"enc.0.resid.out"}}, {"init", "text"}, {"text", ""}})
                .find("has no tokens"),
            std::string::npos);
}

TEST(PTuning, TheDenseNetworkIsThreeLayersWithReluBetween) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("p_tuning", Json{{"length", 3}, {"hidden", 4}});
  const auto p = [&](const std::string& name) {
    return bench->parameters.at("enc.embed.rows/" + name).detach();
  };
  Tensor x = p("embedding");
  for (int layer = 0; layer < 3; ++layer) {
    const std::string name = format("mlp{}_", layer);
    x = (x.unsqueeze(1) * p(name + "weight").unsqueeze(0)).sum(-1) + p(name + "bias");
    if (layer < 2) x = x.clamp_min(0);
  }
  EXPECT_LE((prompt_of(*bench).rows.detach() - x).abs().max().item<double>(), 1e-14);
  EXPECT_EQ(bench->trained(), 3 * 6 + (6 * 4 + 4) + (4 * 4 + 4) + (4 * 6 + 6));
  EXPECT_EQ(bench->formula("p_tuning", {"enc.embed.rows"}), bench->trained());
}

TEST(PTuning, TheRecurrentNetworkFollowsItsEquationsInBothDirections) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("p_tuning", Json{{"length", 3}, {"hidden", 4}, {"encoder", "lstm"}, {"layers", 1}});
  const auto p = [&](const std::string& name) {
    return bench->parameters.at("enc.embed.rows/" + name).detach();
  };
  const auto times = [](const Tensor& w, const Tensor& x) { return (w * x).sum(-1); };
  const Tensor x = p("embedding");
  Tensor states = at::zeros({3, 8}, at::kDouble);
  for (const std::string direction : {"forward", "backward"}) {
    const std::string name = "lstm0_" + direction + "_";
    Tensor h = at::zeros({4}, at::kDouble), c = at::zeros({4}, at::kDouble);
    for (int64_t step = 0; step < 3; ++step) {
      const int64_t at = direction == "forward" ? step : 2 - step;
      const Tensor all = times(p(name + "input_weight"), x[at]) + p(name + "input_bias") +
                         times(p(name + "state_weight"), h) + p(name + "state_bias");
      const Tensor i = logistic(all.narrow(0, 0, 4)), f = logistic(all.narrow(0, 4, 4)),
                   g = all.narrow(0, 8, 4).tanh(), o = logistic(all.narrow(0, 12, 4));
      c = f * c + i * g;
      h = o * c.tanh();
      states[at].narrow(0, direction == "forward" ? 0 : 4, 4).copy_(h);
    }
  }
  Tensor y = (states.unsqueeze(1) * p("mlp0_weight").unsqueeze(0)).sum(-1) + p("mlp0_bias");
  y = (y.clamp_min(0).unsqueeze(1) * p("mlp1_weight").unsqueeze(0)).sum(-1) + p("mlp1_bias");
  EXPECT_LE((prompt_of(*bench).rows.detach() - y).abs().max().item<double>(), 1e-14);
  EXPECT_EQ(bench->formula("p_tuning", {"enc.embed.rows"}), bench->trained());
}

/// Matrix product by plain loops over elements.
Tensor product_of(const Tensor& a, const Tensor& b) {
  return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1);
}

TEST(DecomposedPrompt, TheRowsAreUpdatedByTheirPositionAndScaledByTheRootOfTheRank) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("decomposed_prompt",
                Json{{"length", 2}, {"rank", 4}, {"max_length", 5}, {"alpha", 3}});
  const Tensor a = bench->parameters.at("enc.embed.rows/a").detach();
  const Tensor b = bench->parameters.at("enc.embed.rows/b");
  b.detach().normal_();
  const Tensor x = at::randn({9, 6}, at::kDouble);
  const RowIndex rows = RowIndex::from_lengths({7, 2});
  const std::map<std::string, Tensor> reads;
  const Pass pass;
  const Edit& edit = *bench->edits_at("enc.embed.rows").front();
  const Tensor y = std::get<Apply>(edit).fn(View{x, rows, reads, pass, Tensor(), 0}).detach();
  const Tensor update = product_of(a, b.detach()) * (3 / std::sqrt(4.0));
  for (int64_t r = 0; r < 9; ++r) {
    const int64_t position = r < 7 ? r : r - 7;
    const Tensor expected = position < 5 ? x[r] + update[position] : x[r];
    EXPECT_LE((y[r] - expected).abs().max().item<double>(), 1e-14) << r;
  }
}

TEST(DecomposedPrompt, FusionAndSpacesFollowTheirEquations) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  const Json options{{"length", 3},     {"rank", 2},   {"max_length", 5}, {"fusion", "attention"},
                     {"fusion_dim", 4}, {"spaces", 2}, {"space_dim", 3}};
  bench->attach("decomposed_prompt", options);
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters)
    entry.second.detach().normal_();
  bench->tuner().prepare({});
  const auto p = [&](const std::string& name) {
    return bench->parameters.at("enc.embed.rows/" + name).detach();
  };
  const Tensor knowledge = product_of(p("a"), p("b"));
  const Tensor scores =
      product_of(product_of(p("prompt"), p("query").t()), product_of(knowledge, p("key").t()).t()) /
      2.0;  // the root of fusion_dim
  const Tensor weights = scores.exp() / scores.exp().sum(1, true);
  const Tensor fused =
      p("prompt") +
      product_of(product_of(weights, product_of(knowledge, p("value").t())), p("out").t());
  const Tensor logits = product_of(fused.mean(0, true), p("gate_weight").t()) + p("gate_bias");
  const Tensor gates = (logits.exp() / logits.exp().sum()).reshape({-1});
  Tensor expected = fused;
  for (int64_t m = 0; m < 2; ++m) {
    const Tensor inner = product_of(fused, p(format("down{}", m)).t());
    const Tensor gelu = 0.5 * inner * (1 + (inner / std::sqrt(2.0)).erf());
    expected = expected + gates[m] * product_of(gelu, p(format("up{}", m)).t());
  }
  EXPECT_NEAR(gates.sum().item<double>(), 1, 1e-14);
  EXPECT_LE((prompt_of(*bench).rows.detach() - expected).abs().max().item<double>(), 1e-12);
  // s d + r (S + d) + 4 d d_f + M 2 d p + M (d + 1), sheet and paper
  EXPECT_EQ(bench->trained(), 3 * 6 + 2 * (5 + 6) + 4 * 6 * 4 + 2 * 2 * 6 * 3 + 2 * 7);
  EXPECT_EQ(bench->formula("decomposed_prompt", {"enc.embed.rows"}), bench->trained());
}

TEST(DecomposedPrompt, WithoutItsPartsItIsPlainPromptTuning) {
  const std::unique_ptr<MethodBench> bench = bench_with_rows();
  bench->attach("decomposed_prompt", Json{{"length", 3}, {"rank", 0}});
  EXPECT_EQ(bench->edits_at("enc.embed.rows").size(), 1U);
  EXPECT_TRUE(at::equal(prompt_of(*bench).rows, bench->parameters.at("enc.embed.rows/prompt")));
}

}  // namespace prompts_test
}  // namespace attune
