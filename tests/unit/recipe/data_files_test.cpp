#include "recipe/data_files.h"

#include <gtest/gtest.h>

#include "recipe/yaml.h"
#include "support/temp_folder.h"

namespace attune {
namespace data_files_test {

const std::string kHead = "model: m\ntask: classify\n";

Recipe read(const std::string& text) {
  return Recipe::from_node(parse_yaml(kHead + text, "r.yaml"));
}
std::string refused(const std::string& text) {
  return error_text(ErrorCode::BadInput, [&] { read(text); });
}

TEST(DataFiles, TrainingFilesHaveWeightsAndLimits) {
  const Recipe recipe = read(
      "data: {train: [{path: a, weight: 3}, {path: b, weight: 0.5, limit: 7, columns: {text: "
      "c}}]}\n");
  ASSERT_EQ(recipe.train.size(), 2u);
  EXPECT_EQ(recipe.train[0].weight, 3);
  EXPECT_EQ(recipe.train[0].limit, 0);
  EXPECT_EQ(recipe.train[1].weight, 0.5);
  EXPECT_EQ(recipe.train[1].limit, 7);
  EXPECT_EQ(recipe.train[1].columns.at("text"), "c");
  EXPECT_EQ(read("data: {train: [a, b]}\n").train[1].weight, 0);
}

TEST(DataFiles, EitherEveryFileHasAWeightOrNone) {
  EXPECT_EQ(
      refused("data: {train: [{path: a, weight: 3}, b]}\n"),
      "r.yaml:3:38: data.train[1]: b has no weight, but another file has one; files are mixed "
      "by the weights of all of them, or without any each row comes once an epoch");
  EXPECT_EQ(refused("data: {train: [{path: a}, {path: b, weight: 1}]}\n")
                .find("r.yaml:3:16: data.train[0]: a has no weight"),
            0u);
}

TEST(DataFiles, WrongEntriesSayWhatWasExpected) {
  EXPECT_EQ(refused("data: {train: {path: a, weight: 0}}\n"),
            "r.yaml:3:33: data.train.weight: expected a number in (0, inf), found 0");
  EXPECT_EQ(refused("data: {train: {path: a, wieght: 1}}\n"),
            "r.yaml:3:33: data.train.wieght: unknown key; did you mean \"weight\"?");
  EXPECT_EQ(refused("data: {train: [[a]]}\n"),
            "r.yaml:3:16: data.train[0]: expected a path, or {path, columns, limit, weight}, found "
            "a list");
  EXPECT_NE(refused("data: {train: a, eval: {path: b, weight: 1}}\n")
                .find("data.eval.weight: unknown key;"),
            std::string::npos);
  EXPECT_EQ(refused("data: {train: a}\neval_on: [{path: ''}]\n"),
            "r.yaml:4:11: eval_on[0]: expected a path, or {path, name, columns, limit}, found a "
            "mapping");
}

TEST(EvalOn, SetsAreCalledByTheirFilesOrByTheirNames) {
  const Recipe recipe = read(
      "data: {train: a}\neval_on: [dev/news.jsonl.gz, {path: dev/old.csv, name: forum, limit: "
      "5}]\n");
  ASSERT_EQ(recipe.eval_on.size(), 2u);
  EXPECT_EQ(recipe.eval_on[0].name, "news");
  EXPECT_EQ(recipe.eval_on[0].path, "dev/news.jsonl.gz");
  EXPECT_EQ(recipe.eval_on[1].name, "forum");
  EXPECT_EQ(recipe.eval_on[1].limit, 5);
  const Recipe by_name = read("data: {train: a, eval_on: {x: b.jsonl, y: {path: c.csv}}}\n");
  ASSERT_EQ(by_name.eval_on.size(), 2u);
  EXPECT_EQ(by_name.eval_on[0].name, "x");
  EXPECT_EQ(by_name.eval_on[1].path, "c.csv");
  EXPECT_EQ(read("data: {train: a}\neval_on: b.jsonl\n").eval_on[0].name, "b");
  EXPECT_TRUE(read("data: {train: a}\neval_on: none\n").eval_on.empty());
}

TEST(EvalOn, NamesAreUniqueAndPlain) {
  EXPECT_EQ(refused("data: {train: a}\neval_on: [x/dev.jsonl, y/dev.csv]\n"),
            "r.yaml:4:24: eval_on[1]: x/dev.jsonl and y/dev.csv are both called \"dev\"; give them "
            "names, as in {path: y/dev.csv, name: dev}");
  EXPECT_EQ(
      refused("data: {train: a}\neval_on: {a/b: c}\n"),
      "r.yaml:4:16: eval_on.a/b: \"a/b\" cannot name a set; use letters, digits, \"_\", \"-\" "
      "and \".\", as in {path: c, name: dev}");
  EXPECT_EQ(refused("data: {train: a, eval_on: [b]}\neval_on: [c]\n"),
            "r.yaml:3:27: data.eval_on: eval_on is given outside of `data` too; give one");
}

TEST(EvalOn, TheBestStateMayBeJudgedByASet) {
  const std::string sets = "data: {train: a}\neval_on: [b.jsonl, {path: c, name: forum}]\n";
  EXPECT_EQ(read(sets + "train: {best: forum/accuracy}\n").best_metric, "forum/accuracy");
  EXPECT_EQ(read(sets + "train: {best: {metric: b/macro_f1, patience: 3}}\n").patience, 3);
  EXPECT_EQ(refused(sets + "train: {best: form/accuracy}\n"),
            "r.yaml:5:15: train.best: eval_on has no set \"form\"; did you mean \"forum\"?");
  EXPECT_EQ(refused(sets + "train: {best: forum/acuracy}\n"),
            "r.yaml:5:15: train.best: there is no metric \"acuracy\"; did you mean \"accuracy\"?");
}

TEST(Head, DropoutIsAShareOrTheCheckpoints) {
  EXPECT_EQ(read("data: {train: a}\n").head_dropout, -1);
  EXPECT_EQ(read("data: {train: a}\nhead: {dropout: auto}\n").head_dropout, -1);
  EXPECT_EQ(read("data: {train: a}\nhead: {dropout: 0}\n").head_dropout, 0);
  EXPECT_EQ(read("data: {train: a}\nhead: {dropout: 0.3, pool: mean}\n").head_dropout, 0.3);
  EXPECT_EQ(refused("data: {train: a}\nhead: {dropout: 1}\n"),
            "r.yaml:4:17: head.dropout: expected a number in [0, 1) or \"auto\", found 1");
  EXPECT_EQ(refused("data: {train: a}\nhead: {dropuot: 0}\n"),
            "r.yaml:4:17: head.dropuot: unknown key; did you mean \"dropout\"?");
}

}  // namespace data_files_test
}  // namespace attune
