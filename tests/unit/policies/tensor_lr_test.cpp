#include "base/error.h"
#include "support/toy_run.h"

namespace attune {
namespace tensor_lr_test {

const ToyRun::Named& two_methods() {
  static const ToyRun::Named methods{{"lora", Json{{"rank", 2}, {"lr_ratio", 16}}},
                                     {"bias", Json::object()}};
  return methods;
}

TEST(TensorLr, NamedTensorsAloneLearnAtTheMultiple) {
  ToyRun run(two_methods(), {{"tensor_lr", Json{{"tensors", {"0.lora/*/up"}}, {"scale", 8}}}});
  std::vector<Param> params = run.adaptation.trainable();
  const std::vector<Param> before = params;
  TrainState state{run.model, run.adaptation, params, {}};
  run.policies[0]->begin(state);
  int named = 0;
  for (size_t i = 0; i < params.size(); ++i) {
    const bool up = params[i].name.find("/0.lora/") != std::string::npos &&
                    params[i].name.substr(params[i].name.rfind('/')) == "/up";
    EXPECT_DOUBLE_EQ(params[i].lr_scale, before[i].lr_scale * (up ? 8 : 1)) << params[i].name;
    named += up;
  }
  EXPECT_GT(named, 0);
}

TEST(TensorLr, APatternWithoutATensorIsRefusedWithNearOnes) {
  ToyRun run(two_methods(), {{"tensor_lr", Json{{"tensors", {"0.lora/*/upp"}}}}});
  std::vector<Param> params = run.adaptation.trainable();
  TrainState state{run.model, run.adaptation, params, {}};
  try {
    run.policies[0]->begin(state);
    FAIL() << "must be refused";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("tensor_lr: \"0.lora/*/upp\" matches no trained tensor"), std::string::npos)
        << text;
    EXPECT_NE(text.find("/up"), std::string::npos) << text;
  }
}

}  // namespace tensor_lr_test
}  // namespace attune
