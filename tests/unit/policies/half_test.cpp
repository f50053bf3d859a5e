#include <set>

#include "support/toy_run.h"

namespace attune {
namespace half_test {

const ToyRun::Named kFull{{"full", Json::object()}};

/// A policy on a model of so many blocks, with the sites that train at a step.
class Halved {
 public:
  Halved(const Json& options, int layers, uint64_t seed = 3, const ToyRun::Named& methods = kFull)
      : run_(methods, {{"half", options}}, 0, layers), params_(run_.adaptation.trainable()) {
    state_.reset(new TrainState{run_.model, run_.adaptation, params_, {}});
    state_->pass.seed = seed;
    run_.policies[0]->begin(*state_);
  }
  std::set<std::string> at(int64_t step, double progress) {
    state_->pass.step = step;
    state_->pass.progress = progress;
    state_->restart = false;
    for (Param& param : params_) param.frozen = false;
    run_.policies[0]->before_step(*state_);
    std::set<std::string> sites;
    for (const Param& param : params_)
      if (!param.frozen) sites.insert(split(param.name, '/')[2]);
    return sites;
  }
  std::set<std::string> start() { return at(0, 0.01); }
  bool restarted() const { return state_->restart; }

 private:
  ToyRun run_;
  std::vector<Param> params_;
  std::unique_ptr<TrainState> state_;
};

int count(const std::set<std::string>& sites, const std::string& glob) {
  int matches = 0;
  for (const std::string& site : sites) matches += glob_match(glob, site) ? 1 : 0;
  return matches;
}

TEST(Half, TheCategoriesOfEveryBlockAreHalvedAsInThePaper) {
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    Halved half(Json::object(), 8, seed);
    const std::set<std::string> sites = half.start();
    int two_of_three = 0;
    for (int layer = 0; layer < 8; ++layer) {
      const std::string at = "enc." + std::to_string(layer) + ".";
      EXPECT_EQ(count(sites, at + "self.[qkvo]"), 2);
      const int ffn = count(sites, at + "ffn.{up,gate,down}");
      EXPECT_TRUE(ffn == 1 || ffn == 2);
      two_of_three += ffn == 2 ? 1 : 0;
      EXPECT_EQ(count(sites, at + "*.norm"), 1);
    }
    EXPECT_EQ(two_of_three, 4) << "2 of 3 in half of the blocks: 1.5 L in all";
    EXPECT_EQ(count(sites, "enc.embed.*"), 2) << "embeddings always train";
    EXPECT_EQ(count(sites, "head.proj"), 1);
  }
}

TEST(Half, AnyRatioIsMetOverAllBlocksAndACategoryOfOneAlternates) {
  for (const double ratio : {0.0, 0.1, 0.25, 0.4, 0.6, 0.75, 1.0}) {
    Halved half(Json{{"ratio", ratio}}, 6);
    const std::set<std::string> sites = half.start();
    EXPECT_EQ(count(sites, "*.self.[qkvo]"), std::llround(ratio * 24)) << ratio;
    EXPECT_EQ(count(sites, "*.ffn.{up,gate,down}"), std::llround(ratio * 18)) << ratio;
    EXPECT_EQ(count(sites, "enc.[0-9].*.norm"), std::llround(ratio * 12)) << ratio;
  }
  // Only q trains: one member a block, so half of the blocks.
  Halved lone(Json::object(), 6, 3, {{"full", Json{{"sites", {"*.self.q"}}}}});
  EXPECT_EQ(lone.start().size(), 3u);
}

TEST(Half, WholeBlocksOrAnyMatricesMayBeChosen) {
  Halved layer(Json{{"selection", "layer"}}, 6);
  const std::set<std::string> blocks = layer.start();
  int whole = 0;
  for (int l = 0; l < 6; ++l) {
    const int sites = count(blocks, "enc." + std::to_string(l) + ".*");
    EXPECT_TRUE(sites == 0 || sites == 9) << sites;
    whole += sites == 9 ? 1 : 0;
  }
  EXPECT_EQ(whole, 3);
  Halved model(Json{{"selection", "model"}}, 6);
  EXPECT_EQ(count(model.start(), "enc.[0-9].*"), 27);
}

TEST(Half, AWeightAndItsBiasStayTogether) {
  ToyRun run(kFull, {{"half", Json::object()}});
  run.config.adamw.weight_decay = 0.5;
  run.config.accumulate = 2;
  run.train();
  std::map<std::string, std::set<bool>> moved;
  int still = 0;
  for (const Param& param : run.adaptation.trainable()) {
    const bool changed = !at::equal(param.value.detach(), run.base(param.name));
    moved[split(param.name, '/')[2]].insert(changed);
    still += changed ? 0 : 1;
  }
  for (const std::pair<const std::string, std::set<bool>>& site : moved)
    EXPECT_EQ(site.second.size(), 1u) << site.first;
  EXPECT_GT(still, 10) << "what is not chosen stays bit-equal under decay and clipping";
}

TEST(Half, FrozenMatricesHaveNoOptimizerStateInTheCheckpoint) {
  ToyRun run(kFull, {{"half", Json::object()}});
  run.config.steps = 2;
  run.train();
  const SafetensorsFile file(run.folder.file("run/checkpoints/step-000002/state.safetensors"));
  int with = 0, without = 0;
  for (const Param& param : run.adaptation.trainable()) {
    const bool changed = !at::equal(param.value.detach(), run.base(param.name));
    EXPECT_EQ(file.has(param.name + "#m"), changed) << param.name;
    (changed ? with : without) += 1;
  }
  EXPECT_GT(with, 0);
  EXPECT_GT(without, 0);
}

TEST(Half, ThePassAndTheGradientsOfWhatTrainsAreThoseOfFullTuning) {
  ToyRun half(kFull, {{"half", Json::object()}}), full(kFull);
  half.config.steps = full.config.steps = 1;
  half.config.clip = full.config.clip = 0;
  EXPECT_EQ(half.train().first_loss, full.train().first_loss);
  const Snapshot all = full.trained();
  for (const std::pair<const std::string, Tensor>& entry : half.trained())
    if (!at::equal(entry.second, half.base(entry.first))) {
      EXPECT_TRUE(at::equal(entry.second, all.at(entry.first))) << entry.first;
    }
}

TEST(Half, ANewRoundDrawsAnotherHalfAndAFreshOptimizer) {
  Halved half(Json{{"rounds", 3}}, 12);
  const std::set<std::string> first = half.start();
  EXPECT_FALSE(half.restarted());
  EXPECT_EQ(half.at(5, 0.33), first);
  EXPECT_FALSE(half.restarted());
  const std::set<std::string> second = half.at(6, 0.34);
  EXPECT_TRUE(half.restarted());
  EXPECT_NE(second, first);
  EXPECT_NE(half.at(9, 0.7), second);
  EXPECT_EQ(half.at(20, 1.0), half.at(21, 1.0));
  Halved by_steps(Json{{"steps", 4}}, 12);
  EXPECT_EQ(by_steps.at(3, 0.9), by_steps.start());
  EXPECT_NE(by_steps.at(4, 0.9), by_steps.at(3, 0.9));
}

TEST(Half, TwoHalvesHaveAboutHalfInCommon) {
  const auto matrices = [](uint64_t seed) {
    Halved half(Json::object(), 12, seed);
    std::set<std::string> sites;
    for (const std::string& site : half.start())
      if (glob_match("enc.[0-9]*.self.[qkvo]", site)) sites.insert(site);
    return sites;
  };
  double common = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const std::set<std::string> a = matrices(seed), b = matrices(seed + 1000);
    ASSERT_EQ(a.size(), 24u);
    for (const std::string& site : a) common += b.count(site) > 0 ? 1 : 0;
  }
  EXPECT_NEAR(common / (40 * 24), 0.5, 0.05);
}

TEST(Half, TheDrawIsAFunctionOfItsSeed) {
  EXPECT_EQ(Halved(Json::object(), 6, 3).start(), Halved(Json::object(), 6, 3).start());
  EXPECT_NE(Halved(Json::object(), 6, 3).start(), Halved(Json::object(), 6, 4).start());
  EXPECT_EQ(Halved(Json{{"mask_seed", 9}}, 6, 3).start(),
            Halved(Json{{"mask_seed", 9}}, 6, 4).start());
}

TEST(Half, EmbeddingsAndThePretrainedHeadMayStay) {
  Halved half(Json{{"train_embeddings", false}}, 2);
  EXPECT_EQ(count(half.start(), "enc.embed.*"), 0);
  EXPECT_EQ(count(half.start(), "head.proj"), 1);
  Halved head(Json{{"train_head", false}}, 2);
  EXPECT_EQ(count(head.start(), "head.proj"), 1) << "a new head always trains";
}

TEST(Half, AnotherSeedOrRatioThanTheCheckpointsIsRefused) {
  ToyRun whole(kFull, {{"half", Json::object()}});
  whole.train();
  ToyRun rest(kFull, {{"half", Json{{"ratio", 0.25}}}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { rest.resume_from(whole, 3); }),
            "half: the checkpoint's half was drawn with seed 3, ratio 0.5 and selection category, "
            "but this recipe has seed 3, ratio 0.25 and selection category; resume with the recipe "
            "of the run");
}

TEST(Half, WithoutATrainedMatrixThereIsNothingToSelect) {
  ToyRun run({{"lora", Json{{"rank", 2}}}}, {{"half", Json::object()}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { run.train(); }),
            "half: nothing to select: no matrix of the base model's blocks trains; half tuning "
            "chooses among them, so add a method that trains them, such as full");
}

}  // namespace half_test
}  // namespace attune
