// head_offset: the intervention, the scaling phase that chooses heads, counts, errors.
#include "base/log.h"
#include "flow_bench.h"

namespace attune {
namespace head_offset_test {

const std::vector<std::string> kHeadsSites{"enc.0.self.heads", "enc.1.self.heads"};

Tensor heads_named(const std::string& name) {
  return MethodBench::draw(name, {5, 3, 2});
}
std::unique_ptr<MethodBench> three_heads() {
  return flow_encoder(6, 3);
}

TEST(HeadOffset, OffsetsAreAddedAtTheNamedHeadsAlone) {
  const std::unique_ptr<MethodBench> bench = three_heads();
  Tuner& tuner = bench->attach("head_offset", {{"heads", {{1, 2}, {1, 0}}}});
  bench->disturb();
  tuner.prepare({});
  EXPECT_EQ(bench->parameter_of("shared/offset").sizes(), (std::vector<int64_t>{2, 2}));
  EXPECT_TRUE(bench->edits_at(kHeadsSites[0]).empty());
  const Tensor z = heads_named("z"), y = run_site(*bench, kHeadsSites[1], z).detach();
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t head = 0; head < 3; ++head)
      for (int64_t i = 0; i < 2; ++i) {
        // Heads are kept in order: row 0 of the offsets is head 0, row 1 is head 2.
        const double v =
            head == 1 ? 0 : at2(bench->parameter_of("shared/offset"), head == 0 ? 0 : 1, i);
        EXPECT_EQ(y.index({row, head, i}).item<double>(),
                  z.index({row, head, i}).item<double>() + v);
      }
  EXPECT_EQ(bench->trained(), bench->formula("head_offset", {kHeadsSites[1]}));
  EXPECT_EQ(bench->trained(), 2 * 2);  // K d_h
}

TEST(HeadOffset, BothComponentsScaleFirst) {
  const std::unique_ptr<MethodBench> bench = three_heads();
  Tuner& tuner = bench->attach("head_offset", {{"heads", "all"}, {"component", "both"}});
  bench->disturb();
  tuner.prepare({});
  const Tensor z = heads_named("z"), y = run_site(*bench, kHeadsSites[1], z).detach();
  const Tensor a = bench->parameter_of("shared/scale"), v = bench->parameter_of("shared/offset");
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t head = 0; head < 3; ++head)
      for (int64_t i = 0; i < 2; ++i)
        EXPECT_NEAR(y.index({row, head, i}).item<double>(),
                    (1 + at2(a, 3 + head, i)) * z.index({row, head, i}).item<double>() +
                        at2(v, 3 + head, i),
                    1e-14);
  EXPECT_EQ(bench->trained(), bench->formula("head_offset", kHeadsSites));
  EXPECT_EQ(bench->trained(), 2 * 6 * 2);
  const Tensor weights = heads_named("loss");
  for (const char* name : {"shared/scale", "shared/offset"})
    expect_gradient(bench->parameter_of(name), [&] {
      tuner.prepare({});
      return ((run_site(*bench, kHeadsSites[1], z) + run_site(*bench, kHeadsSites[0], z)) * weights)
          .sum();
    });
}

TEST(HeadOffset, ZeroOffsetsAndFactorsChangeNoBit) {
  for (const char* component : {"offset", "scale", "both"}) {
    const std::unique_ptr<MethodBench> bench = three_heads();
    bench->attach("head_offset", {{"heads", "all"}, {"component", component}, {"init_std", 0}});
    const Tensor z = heads_named("z");
    EXPECT_TRUE(run_site(*bench, kHeadsSites[0], z).equal(z)) << component;
  }
}

TEST(HeadOffset, TheInitialValuesAreSmall) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(384, 6);
  bench->attach("head_offset", {{"heads", "all"}});
  const Tensor v = bench->parameter_of("shared/offset").detach();
  EXPECT_NEAR(v.square().mean().sqrt().item<double>(), 1e-3, 1e-4);
  EXPECT_EQ(bench->learns.at("shared/offset").weight_decay, 0);
}

TEST(HeadOffset, ThreePercentOfTheHeadsAreChosenAtFirstAtRandom) {
  MethodBench bench;
  for (int layer = 0; layer < 10; ++layer)
    bench.flow(format("dec.{}.self.heads", layer), SiteKind::Heads, 24, 12);
  bench.attach("head_offset", {{"heads", "random"}});
  EXPECT_EQ(bench.parameter_of("shared/offset").sizes(), (std::vector<int64_t>{4, 2}));  // 0.03*120
  std::set<std::pair<int64_t, int64_t>> heads;
  const Tensor chosen = bench.buffers.at("shared/heads");
  for (int64_t i = 0; i < 4; ++i)
    heads.insert({chosen.index({i, 0}).item<int64_t>(), chosen.index({i, 1}).item<int64_t>()});
  EXPECT_EQ(heads.size(), 4u);
}

/// Gradients of a loss that depends on head (1, 2) strongly and on head (0, 1) weakly, alone.
Calibration calibration_on(MethodBench& bench, int64_t steps_an_epoch, int64_t* calls) {
  const Tensor z = heads_named("z").abs() + 0.5;
  return {
      [&bench, z, steps_an_epoch, calls](int64_t batches, const std::function<void(double)>& each) {
        for (int64_t i = 0; i < std::min(batches, steps_an_epoch); ++i) {
          bench.tuner().prepare({});
          const Tensor first = run_site(bench, kHeadsSites[0], z),
                       second = run_site(bench, kHeadsSites[1], z);
          backward((second.select(1, 2).sum() * 10.0 + first.select(1, 1).sum() * 1.0) * 4.0);
          ++*calls;
          each(4.0);
        }
      },
      1};
}

TEST(HeadOffset, TheScalingPhaseChoosesTheHeadsWhoseFactorsGrow) {
  const std::unique_ptr<MethodBench> bench = three_heads();
  Tuner& tuner = bench->attach(
      "head_offset", {{"count", 2}, {"select_batches", 25}, {"select_lr", 0.01}, {"l1", 1e-3}});
  const Tensor before = bench->parameter_of("shared/offset").detach().clone();
  int64_t calls = 0;
  tuner.calibrate(calibration_on(*bench, 10, &calls));
  EXPECT_EQ(calls, 25) << "goes on through several epochs";
  const Tensor chosen = bench->buffers.at("shared/heads");
  EXPECT_TRUE(chosen.equal(int64_tensor({0, 1, 1, 2}).reshape({2, 2}))) << chosen;
  EXPECT_TRUE(bench->parameter_of("shared/offset").equal(before)) << "offsets wait";
  // Afterwards the offsets act at the chosen heads, and the factors are gone.
  const Tensor z = heads_named("z");
  const Tensor moved = run_site(*bench, kHeadsSites[1], z).detach() - z;
  EXPECT_LE(difference(moved.select(1, 2), before[1].expand({5, 2})), 1e-15);
  EXPECT_EQ(moved.narrow(1, 0, 2).abs().max().item<double>(), 0);
}

TEST(HeadOffset, AStrongPenaltyHoldsEveryFactorDownAndSaysSo) {
  const std::unique_ptr<MethodBench> bench = three_heads();
  Tuner& tuner =
      bench->attach("head_offset", {{"count", 1}, {"select_batches", 3}, {"select_lr", 1e-6}});
  std::string warned;
  set_log_sink([&](LogLevel, const std::string& text) { warned = text; });
  int64_t calls = 0;
  tuner.calibrate(calibration_on(*bench, 10, &calls));
  set_log_sink(nullptr);
  EXPECT_NE(warned.find("head_offset: no head's factors grew beyond their initial values"),
            std::string::npos)
      << warned;
}

TEST(HeadOffset, NamedHeadsNeedNoScalingPhase) {
  const std::unique_ptr<MethodBench> bench = three_heads();
  Tuner& tuner = bench->attach("head_offset", {{"heads", {{0, 1}}}});
  int64_t calls = 0;
  tuner.calibrate(calibration_on(*bench, 10, &calls));
  EXPECT_EQ(calls, 0);
}

TEST(HeadOffset, ACountTakesTheFirstOfAList) {
  const std::unique_ptr<MethodBench> bench = three_heads();
  bench->attach("head_offset", {{"heads", {{1, 2}, {0, 1}, {1, 0}}}, {"count", 2}});
  const Tensor heads = bench->buffers.at("shared/heads");
  EXPECT_TRUE(at::equal(heads, int64_tensor({0, 1, 1, 2}).reshape({2, 2})));
  EXPECT_EQ(bench->trained(), bench->formula("head_offset", kHeadsSites));
}

TEST(HeadOffset, ACountThatHeadsContradictIsRefused) {
  const auto text = [](const Json& options) { return flow_error("head_offset", options); };
  EXPECT_NE(text({{"heads", "all"}, {"count", 4}})
                .find("heads: all takes every head, so a count of 4 has no meaning; leave one of "
                      "them out"),
            std::string::npos);
  EXPECT_NE(text({{"heads", {{1, 2}, {0, 1}}}, {"count", 3}})
                .find("count 3 is more than the 2 heads of the list; name more heads, or give a "
                      "smaller count"),
            std::string::npos);
}

TEST(HeadOffset, BadHeadsAreReadableErrors) {
  const auto text = [](const Json& options) { return flow_error("head_offset", options); };
  EXPECT_EQ(text({{"heads", "some"}}),
            "test: test.heads: expected auto, random, all or a list of [layer, head], found "
            "\"some\"");
  EXPECT_EQ(text({{"heads", {{0, 2}}}}), "test: test.heads: [0, 2]: layer 0 has heads 0 to 1");
  EXPECT_EQ(text({{"heads", {{7, 0}}}}),
            "test: test.heads: [7, 0]: *.self.heads select no attention of layer 7");
  EXPECT_EQ(text({{"heads", {{0, 1}, {0, 1}}}}), "test: test.heads: head [0, 1] is named twice");
  EXPECT_EQ(text({{"heads", {3}}}), "test: test.heads: expected pairs [layer, head], found 3");
  EXPECT_NE(text({{"heads", Json::array()}}).find("the list is empty"), std::string::npos);
  EXPECT_EQ(text({{"count", 5}}),
            "head_offset: 5 heads are asked for, but *.self.heads select 4 heads in all; give at "
            "most 4");
}

TEST(HeadOffset, HeadsOfTwoSizesOrTwoStacksAreRefused) {
  const auto attached = [](const std::string& second, int64_t width, const Json& options) {
    MethodBench bench;
    bench.flow("enc.0.self.heads", SiteKind::Heads, 6, 3);
    bench.flow(second, SiteKind::Heads, width, 3);
    try {
      bench.attach("head_offset", options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(attached("enc.1.self.heads", 9, {{"heads", "all"}}),
            "head_offset: the heads of enc.0.self.heads have 2 features, those of enc.1.self.heads "
            "have 3; choose sites with heads of one size");
  EXPECT_EQ(attached("dec.0.self.heads", 6, {{"heads", {{0, 1}}}}),
            "test: test.heads: layer 0 is that of enc.0.self.heads and of dec.0.self.heads; narrow "
            "sites to one of them");
}

}  // namespace head_offset_test
}  // namespace attune
