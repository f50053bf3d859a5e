// attune compare: one table of methods and seeds, resumable.
#include <fstream>

#include "e2e/workshop.h"

namespace attune {

namespace compare_test {

class Compare : public Workshop {
 protected:
  Outcome run(std::vector<std::string> more) const {
    std::vector<std::string> args{
        "compare", "recipe.yaml", "--methods", "lora,bitfit", "--seeds",
        "2",       "-o",          "table",     "--set",       "train.steps=6"};
    args.insert(args.end(), more.begin(), more.end());
    return attune(args);
  }
};

TEST_F(Compare, GivesARowAMethodWithMeanAndSpreadOverTheSeeds) {
  train_args({});
  write("recipe.yaml", kRecipe);
  const Outcome outcome = run({"--json"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json rows = Json::parse(outcome.out)["rows"];
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0]["method"], "lora");
  EXPECT_EQ(rows[1]["method"], "bitfit");
  for (size_t i = 0; i < 2; ++i) {
    const std::string name = i == 0 ? "lora" : "bitfit";
    double sum = 0;
    for (const int seed : {1, 2})
      sum += json("table/" + name + "-seed-" + std::to_string(seed) +
                  "/run.json")["metrics"]["accuracy"]
                 .get<double>();
    EXPECT_NEAR(rows[i]["metrics"]["accuracy"]["mean"].get<double>(), sum / 2, 1e-12);
    EXPECT_EQ(rows[i]["metrics"]["accuracy"]["values"].size(), 2U);
    EXPECT_GT(rows[i]["peak_bytes"].get<double>(), 0);
  }
  EXPECT_EQ(json("table/compare.json")["rows"], rows);
  EXPECT_NE(read("table/compare.md").find("| lora |"), std::string::npos);
}

TEST_F(Compare, WhatIsFinishedIsNotRunAgainAndWhatIsMissingIs) {
  write("recipe.yaml", kRecipe);
  ASSERT_EQ(run({}).status, 0);
  const std::filesystem::path done = folder_ / "table/lora-seed-1/run.json",
                              missing = folder_ / "table/bitfit-seed-2";
  const std::filesystem::file_time_type before = std::filesystem::last_write_time(done);
  const Json first = json("table/bitfit-seed-2/run.json")["metrics"];
  std::filesystem::remove_all(missing);
  const Outcome again = run({});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(std::filesystem::last_write_time(done), before);
  EXPECT_EQ(json("table/bitfit-seed-2/run.json")["metrics"], first);
}

TEST_F(Compare, ARunOfAnotherRecipeIsRefusedAndMadeAnewOnDemand) {
  ASSERT_EQ(run({}).status, 0);
  const std::filesystem::path untouched = folder_ / "table/lora-seed-1/run.json";
  const std::filesystem::file_time_type before = std::filesystem::last_write_time(untouched);
  for (const auto& [set, text] : std::vector<std::pair<std::string, std::string>>{
           {"train.steps=8", "train.steps is 6 there and 8 here"},
           {"train.lr=auto", "train.lr is 0.02 there and \"auto\" here"},
           {"data.columns={text: text}", "data.columns.text is absent there"}}) {
    const Outcome outcome = run({"--set", set, "--quiet"});
    EXPECT_EQ(outcome.status, 2) << set;
    EXPECT_NE(outcome.err.find("comparing: table/lora-seed-1 is a run of another recipe: " + text),
              std::string::npos)
        << outcome.err;
  }
  // An interrupted one is not gone on with either.
  std::filesystem::remove(folder_ / "table/bitfit-seed-2/run.json");
  EXPECT_EQ(run({"--set", "train.steps=8", "--quiet"}).status, 2);
  EXPECT_EQ(std::filesystem::last_write_time(untouched), before);
  const Outcome anew = run({"--set", "train.steps=8", "--overwrite"});
  ASSERT_EQ(anew.status, 0) << anew.err;
  for (const char* name : {"lora-seed-1", "lora-seed-2", "bitfit-seed-1", "bitfit-seed-2"})
    EXPECT_EQ(json(std::string("table/") + name + "/run.json")["steps"], 8) << name;
}

TEST_F(Compare, RatesThatAutoBecameAreThoseOfTheSameRecipe) {
  const std::vector<std::string> automatic = {"--set", "train.lr=auto"};
  ASSERT_EQ(run(automatic).status, 0);
  const std::filesystem::path done = folder_ / "table/lora-seed-1/run.json";
  const std::filesystem::file_time_type before = std::filesystem::last_write_time(done);
  const Outcome again = run(automatic);
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(std::filesystem::last_write_time(done), before);
  EXPECT_EQ(run({"--set", "train.lr={lora: 0.5}"}).status, 2);
  // Nor is the length that leaves a prompt room, or another number of threads, another recipe.
  const std::vector<std::string> prompts = {
      "compare", "recipe.yaml", "--methods", "prompt", "--seeds",
      "1",       "-o",          "prompts",   "--set",  "train.steps=2"};
  ASSERT_EQ(attune(prompts).status, 0);
  EXPECT_NE(read("prompts/prompt-seed-1/recipe.yaml").find("max_length: "), std::string::npos);
  std::vector<std::string> once_more = prompts;
  once_more.insert(once_more.end(), {"--threads", "1"});
  const Outcome prompt = attune(once_more);
  EXPECT_EQ(prompt.status, 0) << prompt.err;
}

TEST_F(Compare, FurtherEvaluationSetsHaveTheirMetricsInTheTable) {
  write("dev.jsonl", classify_rows(20, 2));
  write("recipe.yaml", std::string(kRecipe) + "eval_on: {news: dev.jsonl}\n");
  const Json table =
      attune_json({"compare", "recipe.yaml", "--methods", "lora", "--seeds", "1", "--set",
                   "train.steps=2", "--set", "data.eval=null", "--set", "output=run/"});
  EXPECT_EQ(table["output"], "run-compare");
  EXPECT_EQ(table["rows"][0]["metrics"]["news/accuracy"]["mean"],
            json("run-compare/lora-seed-1/run.json")["eval_on"]["news"]["accuracy"]);
  EXPECT_NE(read("run-compare/compare.md").find("| method | news/"), std::string::npos)
      << read("run-compare/compare.md");
}

TEST_F(Compare, AnUnknownMethodIsRefusedBeforeAnythingRuns) {
  write("recipe.yaml", kRecipe);
  const Outcome outcome =
      attune({"compare", "recipe.yaml", "--methods", "lora,lroa", "--seeds", "1", "-o", "table"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("there is no method \"lroa\"; did you mean \"lora\"?"),
            std::string::npos)
      << outcome.err;
  EXPECT_FALSE(exists("table"));
  const Outcome blind = attune(
      {"compare", "recipe.yaml", "--methods", "lora", "--set", "data.eval=null", "-o", "table"});
  EXPECT_EQ(blind.status, 2);
  EXPECT_NE(blind.err.find(
                "comparing needs evaluation data: give data.eval a file or a share such as 10%"),
            std::string::npos)
      << blind.err;
  EXPECT_FALSE(exists("table"));
  const Outcome twice = attune({"compare", "recipe.yaml", "--methods", "lora,lora", "-o", "table"});
  EXPECT_EQ(twice.status, 2);
  EXPECT_NE(twice.err.find("stands there twice"), std::string::npos) << twice.err;
}

}  // namespace compare_test

}  // namespace attune
