#include <gtest/gtest.h>

#include "recipe/recipe.h"
#include "recipe/yaml.h"
#include "support/temp_folder.h"

namespace attune {
namespace recipe_limits_test {

TEST(RecipeLimits, OverridesTakeThePlaceOfTheirRivals) {
  const TempFolder folder;
  const std::string file = folder.write("a.yaml",
                                        "model: m\ntask: classify\ndata: {train: t}\n"
                                        "train: {epochs: 3, batch_size: 4}\n");
  const Recipe recipe = load_recipe(file, {"train.steps=7", "train.batch_tokens=64"});
  EXPECT_EQ(recipe.steps, 7);
  EXPECT_EQ(recipe.epochs, 0);
  EXPECT_EQ(recipe.batch_tokens, 64);
  EXPECT_EQ(recipe.batch_size, 0);
}

TEST(RecipeLimits, TheExamplesAreValid) {
  for (const char* name : {"ATTUNE_DATA", "ATTUNE_MODEL"}) ::setenv(name, "/given", 1);
  int count = 0;
  const std::string folder = std::string(ATTUNE_SOURCE_DIR) + "/examples/recipes";
  for (const std::filesystem::directory_entry& entry :
       std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_NO_THROW(load_recipe(entry.path().string(), {})) << entry.path();
    ++count;
  }
  EXPECT_GT(count, 0);
}

TEST(YamlLimits, QuotesThatNeverCloseAreRefused) {
  for (const char* text : {"a: \"x\n", "a: 'it''s\n", "a: \"x\\\"\n"})
    EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { parse_yaml(text, "r.yaml"); }),
              "r.yaml:1:4: not valid YAML: this quote is never closed");
  EXPECT_EQ(parse_yaml("\xEF\xBB\xBF"
                       "a: 'it''s'\r\nb: \"\xC3\xA9 \\\" x\"\r\n",
                       "r.yaml")
                .to_json()
                .dump(),
            "{\"a\":\"it's\",\"b\":\"\xC3\xA9 \\\" x\"}");
}

TEST(YamlLimits, AValueLeftOutIsPlacedAtItsKey) {
  const Node root = parse_yaml("a: 1\nn:\n\n\nb: 2\n", "r.yaml");
  EXPECT_TRUE(root.find("n")->is_null());
  EXPECT_EQ(root.find("n")->place().text(), "r.yaml:2:1");
}

TEST(ToYaml, WritesBlocksAndQuotesOnlyWhatNeedsIt) {
  const Json value = Json::parse(
      R"({"model":"models/x","betas":[0.9,0.999],"methods":[{"lora":{"rank":8}},"bias"],)"
      R"("eval":"10%","empty":{},"none":[],"n":"8","yes":"yes","eps":1e-08})");
  EXPECT_EQ(to_yaml(value),
            "model: models/x\nbetas: [0.9, 0.999]\nmethods:\n  - lora:\n      rank: 8\n  - bias\n"
            "eval: 10%\nempty: {}\nnone: []\n\"n\": \"8\"\n\"yes\": \"yes\"\neps: 1e-08\n");
}

}  // namespace recipe_limits_test
}  // namespace attune
