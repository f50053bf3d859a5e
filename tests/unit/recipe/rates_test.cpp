#include "recipe/rates.h"

#include <gtest/gtest.h>

#include "tensor/torch.h"

namespace attune {
namespace rates_test {

Param param(const std::string& name, bool head = false) {
  Param result;
  result.name = "default/" + name;
  result.head = head;
  return result;
}

Recipe recipe_of(const std::vector<std::string>& methods) {
  Recipe recipe;
  for (const std::string& name : methods) recipe.methods.push_back({name, Json::object(), ""});
  return recipe;
}

const std::vector<Param> kTrained{param("0.lora/enc.0.self.q/up"),
                                  param("1.bias/enc.0.self.q/bias"),
                                  param("2.head/head.proj/weight", true)};

TEST(Rates, EveryMethodAndANewHeadHaveTheirOwn) {
  const Registry<Tuner> known = methods();
  const double lora = known.at("lora").learning_rate, bias = known.at("bias").learning_rate,
               head = known.at("head").learning_rate;
  ASSERT_LT(lora, bias);
  const Rates rates = rates_of(recipe_of({"lora", "bias"}), known, kTrained, 384);
  EXPECT_DOUBLE_EQ(rates.lr, lora);
  ASSERT_EQ(rates.policies.size(), 2u);
  EXPECT_EQ(rates.policies[0].name, "tensor_lr");
  EXPECT_EQ(rates.policies[0].options["tensors"], Json({"1.bias/*"}));
  EXPECT_NEAR(rates.policies[0].options["scale"].get<double>(), bias / lora, 1e-9);
  EXPECT_EQ(rates.policies[1].name, "head_lr");
  EXPECT_NEAR(rates.policies[1].options["scale"].get<double>(), head / lora, 1e-9);
  EXPECT_NE(rates.line.find("lora"), std::string::npos);
  EXPECT_NE(rates.line.find("head"), std::string::npos);
}

TEST(Rates, AHeadThatTheRecipeNamesAndOneThatIsNotNewAreLeftAlone) {
  const Registry<Tuner> known = methods();
  Recipe named = recipe_of({"lora"});
  named.policies.push_back({"head_lr", Json{{"scale", 2}}, ""});
  EXPECT_TRUE(rates_of(named, known, kTrained, 384).policies.empty());
  EXPECT_TRUE(rates_of(recipe_of({"lora"}), known, {kTrained[0]}, 384).policies.empty());
}

TEST(Rates, ThoseOfTheRecipeWin) {
  Recipe recipe = recipe_of({"lora", "bias"});
  recipe.rates = {{"lora", 4e-4}, {"ia3", 1}};
  const Rates rates = rates_of(recipe, methods(), kTrained, 384);
  EXPECT_DOUBLE_EQ(rates.lr, 4e-4);
  EXPECT_EQ(rates.by_name.count("ia3"), 0u) << "of a method that is not there";
  EXPECT_DOUBLE_EQ(rates.by_name.at("bias"), methods().at("bias").learning_rate);
}

TEST(Rates, AMethodWithoutTensorsOfItsOwnNeedsNoPolicy) {
  const Rates rates = rates_of(recipe_of({"lora", "bias"}), methods(), {kTrained[0]}, 384);
  EXPECT_TRUE(rates.policies.empty());
}

TEST(Rates, FallWithTheWidthForMatricesAlone) {
  const Registry<Tuner> known = methods();
  const double lora = known.at("lora").learning_rate, bias = known.at("bias").learning_rate;
  EXPECT_NEAR(rates_of(recipe_of({"lora"}), known, kTrained, 768).lr, lora / 2, 1e-9);
  EXPECT_NEAR(rates_of(recipe_of({"lora"}), known, kTrained, 64).lr, lora, 1e-9);
  EXPECT_NEAR(rates_of(recipe_of({"bias"}), known, kTrained, 768).lr, bias, 1e-9);
}

TEST(Rates, WithoutMethodsAreThoseOfFullFineTuning) {
  const Registry<Tuner> known = methods();
  EXPECT_DOUBLE_EQ(rates_of(Recipe(), known, kTrained, 384).lr, known.at("full").learning_rate);
}

}  // namespace rates_test
}  // namespace attune
