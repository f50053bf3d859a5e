// adapter and parallel_adapter: the functions of the papers, their options, counts and errors.
#include "base/log.h"
#include "flow_bench.h"

namespace attune {
namespace adapter_test {

const std::vector<std::string> kHoulsby{"enc.0.self.out", "enc.0.ffn.out", "enc.1.self.out",
                                        "enc.1.ffn.out"};
const std::vector<std::string> kPfeiffer{"enc.0.ffn.out", "enc.1.ffn.out"};

TEST(Adapter, HoulsbyAddsTheBottleneckOfTheSubLayersOutput) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("adapter", {{"size", 3}, {"scaling", 0.5}, {"activation", "gelu"}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6);
  for (const std::string& site : kHoulsby)
    EXPECT_LE(difference(run_site(*bench, site, h), h + 0.5 * naive_adapter(*bench, site, h, gelu)),
              1e-13)
        << site;
  EXPECT_TRUE(bench->edits_at("enc.0.ffn.in").empty());
}

TEST(Adapter, PfeifferReadsTheRowsAfterSumAndNormAndAddsBeforeThem) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("adapter", {{"placement", "pfeiffer"}, {"size", 3}, {"norm_eps", 1e-5}});
  bench->disturb();
  EXPECT_TRUE(bench->edits_at("enc.0.self.out").empty());
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.resid.mid"] = x;
  const Tensor u = naive_norm(h + x, bench->weight_of("enc.1.ffn.norm"),
                              bench->bias(bench->site("enc.1.ffn.norm")), 1e-5);
  EXPECT_LE(difference(run_site(*bench, "enc.1.ffn.out", h, flow),
                       h + naive_adapter(*bench, "enc.1.ffn.out", u, relu)),
            1e-12);
}

TEST(Adapter, PfeifferInPreNormStacksReadsTheSum) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(6, 2, /*pre_norm=*/true);
  bench->attach("adapter", {{"placement", "pfeiffer"}, {"size", 3}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.0.resid.mid"] = x;
  EXPECT_LE(difference(run_site(*bench, "enc.0.ffn.out", h, flow),
                       h + naive_adapter(*bench, "enc.0.ffn.out", h + x, relu)),
            1e-12);
}

TEST(Adapter, WithoutItsResidualTheAdapterStandsInTheWayAndSaysSo) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  std::string warned;
  set_log_sink([&](LogLevel, const std::string& text) { warned = text; });
  bench->attach("adapter", {{"size", 3}, {"residual", false}});
  set_log_sink(nullptr);
  EXPECT_NE(warned.find("adapter: without its residual"), std::string::npos) << warned;
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_LE(difference(run_site(*bench, "enc.0.ffn.out", h),
                       naive_adapter(*bench, "enc.0.ffn.out", h, relu)),
            1e-13);
}

TEST(Adapter, TheInnerNormStandsBeforeOrBehindTheProjections) {
  const std::string site = "enc.0.ffn.out";
  const Tensor h = rows_named("h", 5, 6);
  for (const bool in : {true, false}) {
    const std::unique_ptr<MethodBench> bench = flow_encoder();
    bench->attach("adapter", {{"size", 3}, {"scaling", 2}, {"layer_norm", in ? "in" : "out"}});
    bench->disturb();
    const auto norm = [&](const Tensor& x) {
      return naive_norm(x, bench->parameter_of(site + "/norm_weight"),
                        bench->parameter_of(site + "/norm_bias"), 1e-5);
    };
    const Tensor expected = in ? h + 2 * naive_adapter(*bench, site, norm(h), relu)
                               : h + norm(2 * naive_adapter(*bench, site, h, relu));
    EXPECT_LE(difference(run_site(*bench, site, h), expected), 1e-12);
    EXPECT_EQ(bench->trained(), bench->formula("adapter", kHoulsby));
  }
}

TEST(Adapter, ALearnableScaleIsATrainedFactorFromOne) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("adapter", {{"size", 3}, {"scaling", "learnable"}});
  const std::string site = "enc.0.ffn.out";
  EXPECT_EQ(at1(bench->parameter_of(site + "/scale"), 0), 1);
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6);
  const double scale = at1(bench->parameter_of(site + "/scale"), 0);
  EXPECT_LE(difference(run_site(*bench, site, h), h + scale * naive_adapter(*bench, site, h, relu)),
            1e-13);
  EXPECT_EQ(bench->trained(), bench->formula("adapter", kHoulsby));
  const Tensor weights = rows_named("loss", 5, 6);
  for (const char* name : {"scale", "down", "down_bias", "up", "up_bias"})
    expect_gradient(bench->parameter_of(site + "/" + name),
                    [&] { return (run_site(*bench, site, h) * weights).sum(); });
}

TEST(Adapter, ItStartsNearTheIdentityOrExactlyThere) {
  const Tensor h = rows_named("h", 5, 6);
  const auto moved = [&](const char* init) {
    const std::unique_ptr<MethodBench> bench = flow_encoder();
    bench->attach("adapter", {{"size", 3}, {"init", init}});
    return difference(run_site(*bench, "enc.0.ffn.out", h), h);
  };
  EXPECT_GT(moved("bert"), 0);
  EXPECT_LT(moved("bert"), 0.05);
  EXPECT_EQ(moved("lora"), 0);
  EXPECT_EQ(moved("zero"), 0);
}

TEST(Adapter, StartingFromZeroOnlyTheLastBiasLearns) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("adapter", {{"size", 3}, {"init", "zero"}});
  const std::string site = "enc.0.ffn.out";
  backward(run_site(*bench, site, rows_named("h", 5, 6)).sum());
  for (const char* name : {"down", "down_bias", "up"})
    EXPECT_EQ(bench->parameter_of(site + "/" + name).grad().abs().max().item<double>(), 0) << name;
  EXPECT_GT(bench->parameter_of(site + "/up_bias").grad().abs().max().item<double>(), 0);
}

TEST(Adapter, TheCountIsThatOfThePapers) {
  // 2 r d + r + d a site: RoBERTa-base, d / 16 inner features.
  const std::unique_ptr<MethodBench> bench = flow_encoder(768);
  bench->attach("adapter", {{"placement", "pfeiffer"}, {"reduction", 16}});
  EXPECT_EQ(bench->trained(), bench->formula("adapter", kPfeiffer));
  EXPECT_EQ(bench->trained() * 6, 894528);  // 12 blocks
}

TEST(Adapter, DropLayersLeavesTheLowestBlocksWithout) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("adapter", {{"size", 3}, {"drop_layers", 1}});
  EXPECT_TRUE(bench->edits_at("enc.0.self.out").empty());
  EXPECT_TRUE(bench->edits_at("enc.0.ffn.out").empty());
  EXPECT_EQ(bench->edits_at("enc.1.ffn.out").size(), 1u);
  EXPECT_EQ(bench->trained(), bench->formula("adapter", {"enc.1.self.out", "enc.1.ffn.out"}));
}

TEST(Adapter, RandomDropLeavesOutTheLowestBlocksOfAStep) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("adapter", {{"size", 3}, {"random_drop_layers", 2}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6);
  std::map<int, int> seen;  // how many blocks went without
  Flow flow;
  flow.pass.training = true;
  for (int64_t step = 0; step < 600; ++step) {
    flow.pass.step = step;
    tuner.prepare(flow.pass);
    const bool first = run_site(*bench, "enc.0.ffn.out", h, flow).equal(h);
    const bool second = run_site(*bench, "enc.1.self.out", h, flow).equal(h);
    EXPECT_FALSE(second && !first) << "the lowest blocks go first";
    EXPECT_EQ(run_site(*bench, "enc.0.self.out", h, flow).equal(h), first);
    ++seen[(first ? 1 : 0) + (second ? 1 : 0)];
  }
  for (const int blocks : {0, 1, 2}) EXPECT_NEAR(seen[blocks], 200, 50) << blocks;
  flow.pass.training = false;
  tuner.prepare(flow.pass);
  EXPECT_FALSE(run_site(*bench, "enc.0.ffn.out", h, flow).equal(h)) << "all act outside training";
}

TEST(Adapter, EvaluationMayGoWithoutTheLowestBlocks) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("adapter", {{"size", 3}, {"evaluate_without_layers", 1}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_TRUE(run_site(*bench, "enc.0.ffn.out", h).equal(h));
  EXPECT_FALSE(run_site(*bench, "enc.1.ffn.out", h).equal(h));
  Flow flow;
  flow.pass.training = true;
  tuner.prepare(flow.pass);
  EXPECT_FALSE(run_site(*bench, "enc.0.ffn.out", h, flow).equal(h));
}

TEST(Adapter, BadOptionsAreReadableErrors) {
  EXPECT_EQ(flow_error("adapter", {{"scaling", "big"}}),
            "test: test.scaling: expected a number other than 0, or learnable, found \"big\"; the "
            "published values are 1, 2 and 4");
  EXPECT_NE(flow_error("adapter", {{"scaling", 0}}).find("other than 0"), std::string::npos);
  EXPECT_EQ(flow_error("adapter", {{"reduction", 16}}),
            "adapter: reduction 16 leaves no inner feature of the 6 at enc.0.self.out; give a "
            "reduction of at most 6, or the inner size itself (size)");
  EXPECT_EQ(flow_error("adapter", {{"size", 3}, {"drop_layers", 2}}),
            "adapter: drop_layers 2 is more than the 2 blocks that get an adapter allow; give at "
            "most 1");
  EXPECT_NE(flow_error("adapter", {{"size", 3}, {"random_drop_layers", 3}}).find("at most 2"),
            std::string::npos);
  const std::string wrong = flow_error("adapter", {{"sites", "enc.0.self.q"}});
  EXPECT_NE(wrong.find("adapter: the site pattern \"enc.0.self.q\" matches enc.0.self.q, but no "
                       "site of kind rows; this method acts on those, the nearest of this model "
                       "are enc.0.self.in"),
            std::string::npos)
      << wrong;
  const std::string bare = MethodBench::error_of("adapter", {{"size", 3}, {"sites", "*.self.zz"}});
  EXPECT_NE(bare.find("matches nothing"), std::string::npos);
}

TEST(Adapter, PfeifferNeedsTheRowsBetweenTheParts) {
  MethodBench bench;
  bench.flow("enc.0.ffn.out", SiteKind::Rows, 6);
  try {
    bench.attach("adapter", {{"placement", "pfeiffer"}, {"size", 3}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "adapter: placement pfeiffer at enc.0.ffn.out needs the rows enc.0.resid.mid, which "
              "this model does not have (its parts run side by side); use placement: houlsby");
  }
}

TEST(ParallelAdapter, AddsTheBottleneckOfThePartsInput) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("parallel_adapter", {{"size", 3}});
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.0.ffn.in"] = x;
  EXPECT_TRUE(run_site(*bench, "enc.0.ffn.out", h, flow).equal(h)) << "a zero up adds nothing";
  bench->disturb();
  EXPECT_LE(difference(run_site(*bench, "enc.0.ffn.out", h, flow),
                       h + 4 * naive_adapter(*bench, "enc.0.ffn.out", x, relu)),
            1e-13);
  EXPECT_EQ(bench->trained(), bench->formula("parallel_adapter", kPfeiffer));
}

TEST(ParallelAdapter, WithTheIdentityBetweenItIsADenseBypass) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("parallel_adapter", {{"size", 3}, {"activation", "identity"}, {"scaling", 2}});
  bench->disturb();
  const std::string site = "enc.1.ffn.out";
  for (const char* bias : {"/down_bias", "/up_bias"})
    bench->set(site + bias, at::zeros_like(bench->parameter_of(site + bias).detach()));
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  const Tensor bypass =
      2 * naive_product(bench->parameter_of(site + "/up"), bench->parameter_of(site + "/down"));
  Flow flow;
  flow.reads["enc.1.ffn.in"] = x;
  EXPECT_LE(difference(run_site(*bench, site, h, flow), h + naive_linear(x, bypass)), 1e-12);
}

TEST(ParallelAdapter, StandsAtAttentionBeforeItsOutputProjectionToo) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("parallel_adapter",
                {{"size", 3}, {"scaling", 1}, {"sites", {"*.self.heads", "enc.1.self.out"}}});
  bench->disturb();
  const Tensor heads = MethodBench::draw("heads", {5, 2, 3}), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.1.self.in"] = x;
  EXPECT_LE(
      difference(run_site(*bench, "enc.1.self.heads", heads, flow),
                 heads + naive_adapter(*bench, "enc.1.self.heads", x, relu).reshape({5, 2, 3})),
      1e-13);
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_LE(difference(run_site(*bench, "enc.1.self.out", h, flow),
                       h + naive_adapter(*bench, "enc.1.self.out", x, relu)),
            1e-13);
}

TEST(ParallelAdapter, AnInnerResidualAddsThePartsInput) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("parallel_adapter", {{"size", 3}, {"scaling", 1}, {"residual", true}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6), x = rows_named("x", 5, 6);
  Flow flow;
  flow.reads["enc.0.ffn.in"] = x;
  EXPECT_LE(difference(run_site(*bench, "enc.0.ffn.out", h, flow),
                       h + x + naive_adapter(*bench, "enc.0.ffn.out", x, relu)),
            1e-13);
}

TEST(ParallelAdapter, SixteenInnerFeaturesOfRobertaBaseAreThePapersCount) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(768, 12);
  bench->attach("parallel_adapter", {{"size", 16}, {"scaling", 2}});
  EXPECT_EQ(bench->trained(), bench->formula("parallel_adapter", kPfeiffer));
  EXPECT_EQ(bench->trained() * 6, 304320);  // 12 blocks
}

TEST(ParallelAdapter, ASiteThatEndsNoPartIsAReadableError) {
  EXPECT_EQ(flow_error("parallel_adapter", {{"size", 3}, {"sites", "enc.embed.out"}}),
            "parallel_adapter: enc.embed.out is not the end of a part: there are no rows "
            "enc.embed.in before it; choose sites like *.ffn.out, *.self.out or *.self.heads");
}

TEST(ParallelAdapter, AnInnerResidualNeedsEqualWidths) {
  MethodBench bench;
  bench.flow("dec.0.self.in", SiteKind::Rows, 6);
  bench.flow("dec.0.self.heads", SiteKind::Heads, 8, 2);
  const Json options{{"size", 3}, {"sites", "*.self.heads"}};
  Json residual = options;
  residual["residual"] = true;
  try {
    bench.attach("parallel_adapter", residual);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_EQ(
        std::string(error.what()),
        "parallel_adapter: residual: dec.0.self.in has 6 features and dec.0.self.heads has 8; "
        "set residual: false");
  }
  bench.attach("parallel_adapter", options);
  EXPECT_EQ(bench.trained(), 3 * 6 + 3 + 8 * 3 + 8);
  EXPECT_EQ(bench.trained(),
            bench.formula("parallel_adapter", {"dec.0.self.in", "dec.0.self.heads"}));
}

}  // namespace adapter_test
}  // namespace attune
