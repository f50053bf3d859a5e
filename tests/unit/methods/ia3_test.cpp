// (IA)^3: the scaling of keys, values and inner activations, and its parameter count.
#include "formula.h"
#include "method_bench.h"

namespace attune {
namespace ia3_test {

TEST(Ia3, KeysAndValuesAreScaledAtTheOutputBiasIncluded) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("ia3");
  bench->disturb();
  for (const char* name : {"enc.0.self.k", "enc.1.self.v"}) {
    const Affine map = bench->folded(name);
    const Tensor l = bench->parameter_of(std::string(name) + "/scale");
    const Tensor w = bench->weight_of(name), b = bench->bias(bench->site(name));
    for (int64_t o = 0; o < 6; ++o) {
      EXPECT_NEAR(at1(map.bias, o), at1(l, o) * at1(b, o), 1e-14);
      for (int64_t i = 0; i < 6; ++i)
        EXPECT_NEAR(at2(map.weight, o, i), at1(l, o) * at2(w, o, i), 1e-14);
    }
  }
}

TEST(Ia3, TheSecondFeedForwardProjectionIsScaledAtTheInput) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  bench->attach("ia3");
  bench->disturb();
  const std::string name = "enc.1.ffn.down";
  const Affine map = bench->folded(name);
  const Tensor l = bench->parameter_of(name + "/scale"), w = bench->weight_of(name);
  EXPECT_EQ(l.numel(), 8);
  EXPECT_EQ(difference(map.bias, bench->bias(bench->site(name))), 0);
  for (int64_t o = 0; o < 6; ++o)
    for (int64_t i = 0; i < 8; ++i)
      EXPECT_NEAR(at2(map.weight, o, i), at2(w, o, i) * at1(l, i), 1e-14);
}

TEST(Ia3, OnlyScalesAreDeclaredAndTheyStartAtOneWithoutDecay) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("ia3");
  EXPECT_EQ(bench->edits.size(), 6u);
  for (const std::pair<std::string, Edit>& edit : bench->edits)
    EXPECT_STREQ(verb_name(edit.second), "Scale") << edit.first;
  for (const std::pair<const std::string, Tensor>& entry : bench->parameters) {
    EXPECT_EQ(difference(entry.second, at::ones_like(entry.second)), 0);
    EXPECT_EQ(bench->learns.at(entry.first).weight_decay, 0);
  }
  EXPECT_EQ(difference(bench->folded("enc.0.self.k").weight, bench->weight_of("enc.0.self.k")), 0);
}

TEST(Ia3, TrainsTwoHiddenAndOneInnerVectorALayer) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  bench->attach("ia3");
  EXPECT_EQ(bench->trained(), 2 * (2 * 6 + 8));
  // RoBERTa-base: L (2 H + I) = 55,296.
  EXPECT_EQ(
      formula_of("ia3", Json::object(), blocks_of(12, 768, 3072, {"self.k", "self.v", "ffn.down"})),
      55296);
}

TEST(Ia3, AFeedForwardPatternOutsideTheSitesIsRefused) {
  EXPECT_EQ(MethodBench::error_of("ia3", {{"sites", "*.self.k"}, {"feedforward", "*.ffn.down"}}),
            "ia3: feedforward selects enc.0.ffn.down, which sites leaves out; feedforward says "
            "which of the chosen sites are scaled at their input, so add its patterns to sites");
}

TEST(Ia3, TheUnstatedFeedForwardPatternMayMatchNothing) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("ia3", {{"sites", "*.self.[qk]"}});
  EXPECT_EQ(bench->trained(), 4 * 6);
}

}  // namespace ia3_test
}  // namespace attune
