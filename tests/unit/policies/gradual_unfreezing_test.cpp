#include <set>

#include "support/toy_run.h"

namespace attune {
namespace gradual_unfreezing_test {

/// Sites' blocks that train at a point of the run: -1 outside them, -2 embeddings.
std::set<int> training(const Json& options, const ToyRun::Named& methods, double progress,
                       int64_t step = 0) {
  ToyRun run(methods, {{"gradual_unfreezing", options}}, 0, 3);
  std::vector<Param> params = run.adaptation.trainable();
  TrainState state{run.model, run.adaptation, params, {}};
  run.policies[0]->begin(state);
  state.pass.progress = progress;
  state.pass.step = step;
  run.policies[0]->before_step(state);
  std::set<int> blocks;
  for (const Param& param : params)
    if (!param.frozen)
      blocks.insert(param.name.find(".embed.") != std::string::npos ? -2 : param.layer);
  return blocks;
}

const ToyRun::Named kFull{{"full", Json::object()}};

TEST(GradualUnfreezing, TheHeadBeginsThenBlocksFromTheTopThenEmbeddings) {
  const Json options{{"share", 0.5}};  // five stages of a tenth each
  EXPECT_EQ(training(options, kFull, 0.0), (std::set<int>{-1}));
  EXPECT_EQ(training(options, kFull, 0.09), (std::set<int>{-1}));
  EXPECT_EQ(training(options, kFull, 0.11), (std::set<int>{-1, 2}));
  EXPECT_EQ(training(options, kFull, 0.21), (std::set<int>{-1, 1, 2}));
  EXPECT_EQ(training(options, kFull, 0.31), (std::set<int>{-1, 0, 1, 2}));
  EXPECT_EQ(training(options, kFull, 0.41), (std::set<int>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(training(options, kFull, 1.0), (std::set<int>{-2, -1, 0, 1, 2}));
}

TEST(GradualUnfreezing, StagesMayBeCountedInSteps) {
  const Json options{{"steps", 10}};
  EXPECT_EQ(training(options, kFull, 0.9, 9), (std::set<int>{-1}));
  EXPECT_EQ(training(options, kFull, 0.9, 10), (std::set<int>{-1, 2}));
  EXPECT_EQ(training(options, kFull, 0.9, 39), (std::set<int>{-1, 0, 1, 2}));
  EXPECT_EQ(training(options, kFull, 0.9, 40), (std::set<int>{-2, -1, 0, 1, 2}));
}

TEST(GradualUnfreezing, WithoutAHeadTheTopBlockBegins) {
  const ToyRun::Named lora{{"lora", Json{{"rank", 2}, {"sites", {"*.self.q"}}}}};
  EXPECT_EQ(training(Json{{"share", 0.8}}, lora, 0.0), (std::set<int>{2}));
  EXPECT_EQ(training(Json{{"share", 0.8}}, lora, 0.21), (std::set<int>{1, 2}));
  EXPECT_EQ(training(Json{{"share", 0.8}}, lora, 0.41), (std::set<int>{0, 1, 2}));
}

TEST(GradualUnfreezing, WhatHasNotJoinedIsBitEqualToTheBase) {
  ToyRun run(kFull, {{"gradual_unfreezing", Json{{"steps", 2}}}});
  run.config.steps = 3;  // the head, and the top block at the third step
  run.config.adamw.weight_decay = 0.5;
  run.train();
  for (const Param& param : run.adaptation.trainable()) {
    const bool joined = param.name.find("head.") != std::string::npos ||
                        param.name.find("enc.1.") != std::string::npos;
    EXPECT_EQ(!at::equal(param.value.detach(), run.base(param.name)), joined) << param.name;
  }
}

}  // namespace gradual_unfreezing_test
}  // namespace attune
