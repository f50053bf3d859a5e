#include "exchange/module_names.h"

#include "unit/exchange/peft_fixture.h"

namespace attune {
namespace module_names_test {

TEST(ModuleNames, FindsTheLongestTailWithOrWithoutPrefix) {
  const PeftFixture fixture;
  const ModuleNames names(*fixture.loaded.model);
  EXPECT_EQ(names.prefix(), "bert.");
  for (const char* name : {"bert.encoder.layer.1.output.dense", "encoder.layer.1.output.dense",
                           "model.bert.encoder.layer.1.output.dense"}) {
    const ModuleNames::Module* module = names.find(name);
    ASSERT_NE(module, nullptr) << name;
    EXPECT_EQ(module->site.name, "enc.1.ffn.down");
    EXPECT_TRUE(module->in_base);
    EXPECT_EQ(names.bare(*module), "encoder.layer.1.output.dense");
  }
  EXPECT_EQ(names.find("bert.encoder.layer.9.output.dense"), nullptr);
  EXPECT_FALSE(names.find("classifier")->in_base);
}

TEST(ModuleNames, RefusesATailOfTwoModules) {
  const PeftFixture fixture;
  const ModuleNames names(*fixture.loaded.model);
  expect_text(error_text(ErrorCode::BadInput, [&] { names.find("attention.self.query"); }),
              "fits both bert.encoder.layer.0.attention.self.query and "
              "bert.encoder.layer.1.attention.self.query of this model");
}

TEST(ModuleNames, KnowsTheSpellingOfNewerReleases) {
  if (architectures().find("vit") == nullptr) GTEST_SKIP() << "no vision model in this build";
  const PeftFixture fixture("vit");
  const ModuleNames names(*fixture.loaded.model);
  const std::vector<std::pair<std::string, std::string>> pairs{
      {"vit.encoder.layer.1.attention.attention.query", "vit.layers.1.attention.q_proj"},
      {"vit.encoder.layer.0.attention.output.dense", "vit.layers.0.attention.o_proj"},
      {"vit.encoder.layer.0.intermediate.dense", "vit.layers.0.mlp.fc1"},
      {"vit.encoder.layer.0.output.dense", "vit.layers.0.mlp.fc2"},
      {"vit.encoder.layer.0.layernorm_before", "vit.layers.0.layernorm_before"}};
  for (const std::pair<std::string, std::string>& pair : pairs) {
    const ModuleNames::Module* module = names.find(pair.first);
    ASSERT_NE(module, nullptr) << pair.first;
    EXPECT_EQ(module, names.find(pair.second));
    EXPECT_EQ(names.spelled(*module, false, false), pair.first);
    EXPECT_EQ(names.spelled(*module, true, false), pair.second);
    EXPECT_EQ(names.spelled(*module, true, true), pair.second.substr(4));
  }
}

TEST(ModuleNames, KeepsATiedOutputLayerApartFromTheTokenTable) {
  if (architectures().find("t5") == nullptr) GTEST_SKIP() << "no encoder-decoder in this build";
  const PeftFixture fixture("t5");
  const ModuleNames names(*fixture.loaded.model);
  const ModuleNames::Module* output = names.find("lm_head");
  const ModuleNames::Module* tokens = names.find("shared");
  ASSERT_TRUE(output != nullptr && tokens != nullptr);
  EXPECT_NE(output, tokens);
  EXPECT_EQ(output->site.weight, WeightKind::Projection);
  EXPECT_EQ(output->site.storage, tokens->site.storage);
  EXPECT_EQ(tokens->uses, 2);  // the encoder's and the decoder's rows
}

}  // namespace module_names_test
}  // namespace attune
