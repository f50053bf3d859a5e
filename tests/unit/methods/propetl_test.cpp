// propetl: masks of a shared prototype, their straight-through gradients, the three forms, counts.
#include <algorithm>

#include "flow_bench.h"

namespace attune {
namespace propetl_test {

const std::vector<std::string> kFfn{"enc.0.ffn.out", "enc.1.ffn.out"};

/// 1 where fewer than `kept` scores are larger (earlier first among equals).
Tensor naive_mask(const Tensor& scores, int64_t kept) {
  const Tensor flat = scores.detach().reshape({-1});
  Tensor mask = at::zeros({flat.numel()}, at::kDouble);
  for (int64_t i = 0; i < flat.numel(); ++i) {
    int64_t before = 0;
    for (int64_t j = 0; j < flat.numel(); ++j)
      before += at1(flat, j) > at1(flat, i) || (at1(flat, j) == at1(flat, i) && j < i) ? 1 : 0;
    if (before < kept) mask.index({i}).fill_(1);
  }
  return mask.reshape(scores.sizes());
}

Tensor masked(const MethodBench& bench, const std::string& prototype, const std::string& scores,
              double sparsity) {
  const Tensor s = bench.parameter_of(scores).detach();
  const int64_t kept = std::llround((1 - sparsity) * static_cast<double>(s.numel()));
  const Tensor mask = naive_mask(s, kept);
  EXPECT_EQ(mask.sum().item<double>(), static_cast<double>(kept));
  return bench.parameter_of(prototype).detach() * mask;
}

TEST(Propetl, EachLayerUsesTheLargestScoresOfOnePrototype) {
  for (const double sparsity : {0.0, 0.3, 0.5, 0.95}) {
    const std::unique_ptr<MethodBench> bench = flow_encoder();
    Tuner& tuner = bench->attach("propetl", {{"size", 3}, {"sparsity", sparsity}});
    bench->disturb();
    tuner.prepare({});
    const Tensor h = rows_named("h", 5, 6);
    const std::string prototype = "shared/enc.ffn.out/";
    for (const std::string& site : kFfn) {
      const Tensor down = masked(*bench, prototype + "down", site + "/down_scores", sparsity),
                   up = masked(*bench, prototype + "up", site + "/up_scores", sparsity);
      const Tensor inner =
          each(naive_linear(h, down, bench->parameter_of(prototype + "down_bias")), relu);
      EXPECT_LE(difference(run_site(*bench, site, h),
                           h + naive_linear(inner, up, bench->parameter_of(prototype + "up_bias"))),
                1e-13)
          << site << " " << sparsity;
    }
    EXPECT_EQ(bench->trained(), bench->formula("propetl", kFfn));
  }
}

TEST(Propetl, EqualScoresStillKeepTheShareAsked) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("propetl", {{"size", 3}, {"form", "lora"}, {"sparsity", 0.5}});
  bench->disturb();
  const std::string scores = "enc.0.self.q/down_scores";
  bench->set(scores, at::ones({3, 6}, at::kDouble));
  tuner.prepare({});
  const LowRank& edit = std::get<LowRank>(*bench->edits_at("enc.0.self.q")[0]);
  EXPECT_EQ(edit.down.detach().ne(0).sum().item<int64_t>(), 9);
  EXPECT_EQ(difference(edit.down, masked(*bench, "shared/enc.self.q/down", scores, 0.5)), 0);
}

TEST(Propetl, TheScoresGetTheGradientOfTheMaskAndThePrototypeThatOfEveryLayer) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("propetl", {{"size", 3}, {"activation", "gelu"}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6), weights = rows_named("loss", 5, 6);
  const auto loss = [&] {
    tuner.prepare({});
    return (run_site(*bench, kFfn[0], h) * weights + run_site(*bench, kFfn[1], h)).sum();
  };
  for (const char* name : {"down", "up", "down_bias", "up_bias"})
    expect_gradient(bench->parameter_of(std::string("shared/enc.ffn.out/") + name), loss);
  // dL/dM of the first layer by central differences on the mask as a real number.
  const std::string scores = kFfn[0] + "/down_scores";
  bench->parameter_of(scores).mutable_grad() = Tensor();
  backward(loss());
  const Tensor straight = bench->parameter_of(scores).grad().clone();
  const Tensor prototype = bench->parameter_of("shared/enc.ffn.out/down").detach();
  const Tensor mask = naive_mask(bench->parameter_of(scores), 9),
               up = masked(*bench, "shared/enc.ffn.out/up", kFfn[0] + "/up_scores", 0.5);
  const auto value = [&](const Tensor& m) {
    const Tensor inner = each(
        naive_linear(h, prototype * m, bench->parameter_of("shared/enc.ffn.out/down_bias")), gelu);
    const Tensor y = h + naive_linear(inner, up, bench->parameter_of("shared/enc.ffn.out/up_bias"));
    return (y * weights).sum().item<double>();
  };
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 6; ++j) {
      Tensor step = at::zeros({3, 6}, at::kDouble);
      step.index({i, j}).fill_(1e-6);
      EXPECT_NEAR(at2(straight, i, j), (value(mask + step) - value(mask - step)) / 2e-6, 1e-7);
    }
}

TEST(Propetl, TheMasksLearnAtTheirOwnRateWithoutDecay) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("propetl", {{"size", 3}});
  EXPECT_EQ(bench->learns.at("enc.0.ffn.out/up_scores").lr_scale, 30);
  EXPECT_EQ(bench->learns.at("enc.0.ffn.out/up_scores").weight_decay, 0);
  EXPECT_EQ(bench->learns.at("shared/enc.ffn.out/up").lr_scale, 1);
}

TEST(Propetl, TheLowRankFormMasksBothFactors) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("propetl", {{"size", 3}, {"form", "lora"}, {"scaling", 2}});
  EXPECT_EQ(difference(bench->folded("enc.1.self.v").weight, bench->weight_of("enc.1.self.v")), 0);
  bench->disturb();
  tuner.prepare({});
  const Tensor down = masked(*bench, "shared/enc.self.v/down", "enc.1.self.v/down_scores", 0.5),
               up = masked(*bench, "shared/enc.self.v/up", "enc.1.self.v/up_scores", 0.5);
  EXPECT_LE(difference(bench->folded("enc.1.self.v").weight,
                       bench->weight_of("enc.1.self.v") + 2 * naive_product(up, down)),
            1e-13);
  EXPECT_TRUE(bench->edits_at("enc.1.self.k").empty());
  EXPECT_EQ(bench->trained(), bench->formula("propetl", {"enc.0.self.q", "enc.0.self.v",
                                                         "enc.1.self.q", "enc.1.self.v"}));
}

TEST(Propetl, ThePrefixFormMasksKeysAndValues) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("propetl", {{"size", 4}, {"form", "prefix"}});
  bench->disturb();
  tuner.prepare({});
  const Extend& edit = std::get<Extend>(*bench->edits_at("enc.1.self.kv")[0]);
  EXPECT_EQ(difference(edit.keys,
                       masked(*bench, "shared/enc.self.kv/keys", "enc.1.self.kv/keys_scores", 0.5)),
            0);
  EXPECT_EQ(difference(edit.values, masked(*bench, "shared/enc.self.kv/values",
                                           "enc.1.self.kv/values_scores", 0.5)),
            0);
  EXPECT_EQ(bench->trained(), bench->formula("propetl", {"enc.0.self.kv", "enc.1.self.kv"}));
}

TEST(Propetl, TheCountIsOnePrototypeAndAMaskALayer) {
  // One adapter 2 r d + r + d for all layers, and a score a masked weight and layer.
  const std::unique_ptr<MethodBench> bench = flow_encoder(768, 12);
  bench->attach("propetl", {{"reduction", 12}});
  EXPECT_EQ(bench->trained(), (2 * 64 * 768 + 64 + 768) + 2 * (2 * 64 * 768));
  EXPECT_EQ(bench->trained(), bench->formula("propetl", kFfn));
}

TEST(Propetl, BadOptionsAreReadableErrors) {
  EXPECT_EQ(flow_error("propetl", {{"size", 9}, {"form", "lora"}}),
            "propetl: rank 9 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at "
            "most 6");
  EXPECT_EQ(flow_error("propetl", {{"size", 3}, {"form", "lora"}, {"scaling", "learnable"}}),
            "test: test.scaling: propetl: only form: adapter has a learnable scale; give a number");
  MethodBench bench;
  bench.flow("enc.0.ffn.out", SiteKind::Rows, 6);
  bench.flow("enc.1.ffn.out", SiteKind::Rows, 8);
  try {
    bench.attach("propetl", {{"size", 2}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "propetl: enc.0.ffn.out and enc.1.ffn.out share one prototype but have other sizes; "
              "choose sites of one size, or give each group a propetl of its own");
  }
}

}  // namespace propetl_test
}  // namespace attune
