#include "support/toy_run.h"

namespace attune {
namespace head_lr_test {

TEST(HeadLr, ANewHeadAloneLearnsAtTheMultiple) {
  ToyRun run({{"full", Json::object()}, {"lora", Json{{"rank", 2}, {"lr_ratio", 16}}}},
             {{"head_lr", Json{{"scale", 8}}}});
  std::vector<Param> params = run.adaptation.trainable();
  const std::vector<Param> before = params;
  TrainState state{run.model, run.adaptation, params, {}};
  run.policies[0]->begin(state);
  int heads = 0;
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_DOUBLE_EQ(params[i].lr_scale, before[i].lr_scale * (params[i].head ? 8 : 1))
        << params[i].name;
    heads += params[i].head;
  }
  EXPECT_EQ(heads, 2) << "weight and bias";
}

}  // namespace head_lr_test
}  // namespace attune
