#include "recipe/recipe.h"

#include <gtest/gtest.h>

#include "recipe/yaml.h"
#include "support/temp_folder.h"

namespace attune {
namespace recipe_test {

const char* const kLeast = "model: m\ntask: classify\ndata: {train: t.jsonl}\n";

Recipe read(const std::string& text) {
  return Recipe::from_node(parse_yaml(text, "r.yaml"));
}
Recipe with(const std::string& assignment) {
  return Recipe::from_node(apply_set(parse_yaml(kLeast, "r.yaml"), assignment));
}
std::string refused(const std::string& text) {
  return error_text(ErrorCode::BadInput, [&] { read(kLeast + text); });
}
std::string refused_set(const std::string& assignment) {
  return error_text(ErrorCode::BadInput, [&] { with(assignment); });
}

TEST(Recipe, OnlyModelTaskAndTrainingDataAreNeeded) {
  const Recipe recipe = read(kLeast);
  EXPECT_EQ(recipe.model, "m");
  ASSERT_EQ(recipe.train.size(), 1u);
  EXPECT_EQ(recipe.train[0].path, "t.jsonl");
  EXPECT_TRUE(recipe.eval.empty());
  EXPECT_EQ(recipe.eval_share, 0);
  EXPECT_TRUE(recipe.methods.empty());
  EXPECT_EQ(recipe.objective.name, "auto");
  EXPECT_EQ(recipe.epochs, 3);
  EXPECT_EQ(recipe.batch_tokens, 2048);
  EXPECT_EQ(recipe.batch_size, 0);
  EXPECT_EQ(recipe.lr, 0);
  EXPECT_EQ(recipe.schedule.kind, Schedule::Kind::Linear);
  EXPECT_DOUBLE_EQ(recipe.schedule.warmup, 0.06);
  EXPECT_EQ(recipe.clip, 1);
  EXPECT_EQ(recipe.eval_every.kind, Interval::Kind::Share);
  EXPECT_DOUBLE_EQ(recipe.eval_every.value, 0.1);
  EXPECT_EQ(recipe.output, "runs/r");
  for (const char* missing : {"task: classify\ndata: {train: t}\n", "model: m\ndata: {train: t}\n",
                              "model: m\ntask: classify\n", "model: m\ntask: classify\ndata: {}\n"})
    EXPECT_NE(
        error_text(ErrorCode::BadInput, [&] { read(missing); }).find("missing; it is required"),
        std::string::npos);
}

TEST(Recipe, TheExampleOfTheManualIsRead) {
  const Recipe recipe = read(
      "model: m\ntask: classify\ninit_from: runs/a\n"
      "data:\n  train: [a.jsonl, {path: b.csv, columns: {text: body}, limit: 5}]\n  eval: 10%\n"
      "  columns: {text: description, label: section}\n  max_length: 256\n  on_bad_row: skip\n  "
      "header: false\n"
      "methods:\n  - lora: {rank: 8, alpha: 16}\n  - bias\npolicies: [{layer_decay: {factor: "
      "0.9}}]\n"
      "objective: cross_entropy\nhead: {pool: mean}\nlabel_smoothing: 0.1\nclass_weights: {a: 2, "
      "7: 0.5}\n"
      "train:\n  steps: 100\n  batch_size: 16\n  optimizer: {adamw: {lr: 2e-4, betas: [0.8, 0.99], "
      "weight_decay: 0}}\n"
      "  schedule: {cosine: {warmup: 20}}\n  clip: 0\n  precision: fp32\n  eval_every: {steps: "
      "10}\n"
      "  save_every: never\n  best: {metric: accuracy, patience: 5}\n  seed: 9\noutput: "
      "runs/sections\n");
  EXPECT_EQ(recipe.train[1].columns.at("text"), "body");
  EXPECT_EQ(recipe.train[1].limit, 5);
  EXPECT_DOUBLE_EQ(recipe.eval_share, 0.1);
  EXPECT_EQ(recipe.columns.at("label"), "section");
  EXPECT_TRUE(recipe.skip_bad_rows);
  EXPECT_FALSE(recipe.header);
  ASSERT_EQ(recipe.methods.size(), 2u);
  EXPECT_EQ(recipe.methods[0].name, "lora");
  EXPECT_EQ(recipe.methods[0].options["rank"], 8);
  EXPECT_EQ(recipe.methods[0].path, "r.yaml:12:5: methods[0]");
  EXPECT_EQ(recipe.policies[0].options["factor"], 0.9);
  EXPECT_EQ(recipe.objective.name, "cross_entropy");
  EXPECT_EQ(recipe.pool, "mean");
  EXPECT_EQ(recipe.class_weights, Json::parse(R"({"a":2.0,"7":0.5})"));
  EXPECT_EQ(recipe.epochs, 0);
  EXPECT_EQ(recipe.steps, 100);
  EXPECT_EQ(recipe.batch_tokens, 0);
  EXPECT_EQ(recipe.batch_size, 16);
  EXPECT_EQ(recipe.lr, 2e-4);
  EXPECT_EQ(recipe.beta1, 0.8);
  EXPECT_EQ(recipe.schedule.kind, Schedule::Kind::Cosine);
  EXPECT_EQ(recipe.schedule.warmup_steps, 20);
  EXPECT_EQ(recipe.eval_every.kind, Interval::Kind::Steps);
  EXPECT_EQ(recipe.save_every.kind, Interval::Kind::Never);
  EXPECT_EQ(recipe.best_metric, "accuracy");
  EXPECT_EQ(recipe.patience, 5);
  EXPECT_EQ(recipe.seed, 9u);
  EXPECT_EQ(read(recipe.resolved_yaml()).resolved(), recipe.resolved()) << recipe.resolved_yaml();
}

TEST(Recipe, ResolvedRecipesReadBackAsTheSame) {
  for (const char* assignment :
       {"train.lr=3e-5",
        "data.eval=7%",
        "data.eval=100",
        "data.eval=e.jsonl",
        "data.eval=[{path: e, limit: 3}]",
        "train.minutes=1.5",
        "train.eval_every=epoch",
        "train.save_every={minutes: 0.5}",
        "train.eval_every={epochs: 2}",
        "train.schedule=constant",
        "train.schedule={linear: {warmup: 7%}}",
        "methods=[lora, norms]",
        "methods=none",
        "train.best=auto",
        "class_weights=balanced",
        "train.save_every={examples: 1000}",
        "train.eval_every=0.7%",
        "model='007'",
        "train.epochs=0.1",
        "objective={cross_entropy: {smoothing: 0.1}}",
        "data.columns={text: '1'}",
        "head={dropout: 0.25}",
        "data.train=[{path: a, weight: 2}, {path: b, weight: 0.5, limit: 3}]",
        "eval_on=[dev/a.jsonl, {path: b.csv, name: other, limit: 4}]",
        "data.eval_on={x: a, y: {path: b, columns: {text: c}}}"}) {
    const Recipe recipe = with(assignment);
    EXPECT_EQ(read(recipe.resolved_yaml()).resolved(), recipe.resolved()) << recipe.resolved_yaml();
  }
  EXPECT_EQ(read(with("train.eval_every=0.7%").resolved_yaml()).eval_every.value,
            with("train.eval_every=0.7%").eval_every.value);
  EXPECT_EQ(read(with("train.schedule={linear: {warmup: 7%}}").resolved_yaml()).schedule.warmup,
            0.07);
}

TEST(Recipe, APlainNumberIsAnIntervalInSteps) {
  EXPECT_EQ(with("train.save_every=500").save_every.kind, Interval::Kind::Steps);
  EXPECT_EQ(with("train.save_every=500").save_every.value, 500);
}

TEST(Recipe, UnknownNamesGetTheNearest) {
  EXPECT_EQ(refused("trian: {}\n"), "r.yaml:4:8: trian: unknown key; did you mean \"train\"?");
  EXPECT_EQ(refused("train: {epoch: 3}\n"),
            "r.yaml:4:16: train.epoch: unknown key; did you mean \"epochs\"?");
  EXPECT_EQ(refused("methods:\n  - lroa\n"),
            "r.yaml:5:5: methods[0]: there is no method \"lroa\"; did you mean \"lora\"?");
  EXPECT_EQ(refused("methods: [{lora: {rnak: 8}}]\n"),
            "r.yaml:4:25: methods[0].lora.rnak: unknown key; did you mean \"rank\"?");
  EXPECT_NE(
      refused("policies: [decay_layer]\n").find("policies[0]: there is no policy \"decay_layer\";"),
      std::string::npos);
  EXPECT_NE(refused("objective: cross_entropi\n").find("did you mean \"cross_entropy\"?"),
            std::string::npos);
  EXPECT_NE(refused("train: {best: acuracy}\n")
                .find("there is no metric \"acuracy\"; did you mean \"accuracy\"?"),
            std::string::npos);
  EXPECT_EQ(refused_set("task=clasify"),
            "--set task:1:1: task: there is no task \"clasify\"; did you mean \"classify\"?");
  EXPECT_NE(refused("train: {optimizer: adamm}\n")
                .find("there is no optimizer \"adamm\"; did you mean \"adamw\"?"),
            std::string::npos);
  EXPECT_NE(refused("train: {schedule: linaer}\n")
                .find("unknown schedule \"linaer\"; did you mean \"linear\"?"),
            std::string::npos);
  EXPECT_NE(refused_set("data.columns={txt: a}")
                .find("data.columns.txt: no task has such a column; did you mean \"text\"?"),
            std::string::npos);
  EXPECT_NE(refused_set("train.eval_every={stpes: 3}")
                .find("train.eval_every.stpes: unknown key; expected a share"),
            std::string::npos);
}

TEST(Recipe, TwoWaysToSayOneThingAreRefused) {
  EXPECT_EQ(
      refused("train: {epochs: 3, steps: 10}\n"),
      "r.yaml:4:27: train.steps: epochs is given too (line 4); give one of epochs, steps, minutes");
  EXPECT_NE(refused("train: {batch_tokens: 3, batch_size: 10}\n")
                .find("give one of batch_tokens, batch_size"),
            std::string::npos);
  EXPECT_NE(refused("train: {lr: 1e-3, optimizer: {adamw: {lr: 1e-4}}}\n")
                .find("the learning rate is given at"),
            std::string::npos);
}

TEST(Recipe, WrongValuesSayWhatWasExpected) {
  EXPECT_EQ(refused("methods: [{a: {}, b: {}}]\n"),
            "r.yaml:4:11: methods[0]: expected a name, or one name with its options such as {lora: "
            "{rank: 8}}, found a "
            "mapping");
  EXPECT_NE(refused("methods: [{lora: 8}]\n")
                .find("methods[0].lora: expected a mapping of options, found 8"),
            std::string::npos);
  EXPECT_NE(refused("class_weights: heavy\n").find("expected balanced, or {label: weight}"),
            std::string::npos);
  EXPECT_NE(refused("class_weights: {a: -1}\n")
                .find("class_weights.a: expected a weight of at least 0, found -1"),
            std::string::npos);
  for (const char* interval :
       {"soon", "0%", "101%", "0", "-5", "{steps: 0}", "{steps: 1.5}", "{a: 1, b: 2}", "[1]"})
    EXPECT_NE(refused_set("train.eval_every=" + std::string(interval)).find("expected a"),
              std::string::npos)
        << interval;
  for (const char* eval : {"0%", "100%", "0", "1.5", "[]", "[[a]]", "{path: ''}"})
    EXPECT_NE(refused_set("data.eval=" + std::string(eval)).find("data.eval"), std::string::npos)
        << eval;
  for (const char* warmup : {"100%", "-1", "fast", "[1]", "1.5"})
    EXPECT_NE(refused_set("train.schedule={linear: {warmup: " + std::string(warmup) + "}}")
                  .find("linear.warmup: expected"),
              std::string::npos)
        << warmup;
  EXPECT_NE(refused_set("train.schedule=[a]").find("expected linear, cosine, constant"),
            std::string::npos);
  EXPECT_NE(
      refused_set("train.optimizer={adamw: {betas: [0.9]}}").find("betas: expected two numbers"),
      std::string::npos);
  EXPECT_NE(refused_set("train.precision=fp8").find("expected one of auto, fp32, bf16, fp64"),
            std::string::npos);
  EXPECT_NE(refused_set("data.train=[]").find("data.train: expected at least one file"),
            std::string::npos);
}

TEST(Recipe, FilesTakeOverrides) {
  const TempFolder folder;
  const std::string path = folder.write("sections.yaml", kLeast + std::string("methods: [lora]\n"));
  const Recipe recipe = load_recipe(path, {"methods.0.lora.rank=4", "train.seed=3"});
  EXPECT_EQ(recipe.methods[0].options["rank"], 4);
  EXPECT_EQ(recipe.seed, 3u);
  EXPECT_EQ(recipe.output, "runs/sections");
  error_text(ErrorCode::NotFound, [&] { load_recipe(folder.file("none.yaml"), {}); });
}

TEST(Recipe, FlagsMakeTheSameRecipeAsAFile) {
  const Json args = Json::parse(
      R"({"model":"m","task":"classify","train":["t.jsonl"],"eval":["10%"],"method":["lora","{bias: {}}"],"output":"runs/r",
          "columns":"text=a,label=b","epochs":2,"lr":1e-4,"batch_size":8,"batch_tokens":null,"max_length":64,"seed":4})");
  const Recipe file = read(
      "model: m\ntask: classify\ndata: {train: t.jsonl, eval: 10%, columns: {text: a, label: b}, "
      "max_length: 64}\n"
      "methods: [lora, bias]\ntrain: {epochs: 2, lr: 1e-4, batch_size: 8, seed: 4}\n");
  EXPECT_EQ(recipe_from_flags(args, {}).resolved(), file.resolved());
  EXPECT_EQ(recipe_from_flags(args, {"train.seed=6"}).seed, 6u);
}

TEST(Recipe, FlagsOverrideARecipeFile) {
  const TempFolder folder;
  const std::string path = folder.write(
      "sections.yaml",
      "model: m\ntask: classify\ndata: {train: t.jsonl, columns: {text: a}}\nmethods: [lora]\n"
      "train: {steps: 9, batch_tokens: 64, optimizer: {adamw: {lr: 1e-3, weight_decay: 0}}}\n");
  const Json flags = Json::parse(
      R"({"recipe":"sections.yaml","model":"other","task":null,"train":["u.jsonl","v.jsonl"],"eval":["20%"],
          "method":["bias"],"output":"runs/r","columns":null,"epochs":0.5,"lr":2e-4,"batch_size":4,"batch_tokens":null,
          "max_length":32,"seed":8,"threads":2})");
  const Recipe recipe = load_recipe(path, {"train.seed=9"}, flags);
  EXPECT_EQ(recipe.model, "other");
  EXPECT_EQ(recipe.task, "classify");
  ASSERT_EQ(recipe.train.size(), 2u);
  EXPECT_EQ(recipe.train[1].path, "v.jsonl");
  EXPECT_EQ(recipe.eval_share, 0.2);
  ASSERT_EQ(recipe.methods.size(), 1u);
  EXPECT_EQ(recipe.methods[0].name, "bias");
  EXPECT_EQ(recipe.columns.at("text"), "a");
  EXPECT_EQ(recipe.output, "runs/r");
  EXPECT_EQ(recipe.epochs, 0.5);
  EXPECT_EQ(recipe.steps, 0);
  EXPECT_EQ(recipe.lr, 2e-4);
  EXPECT_EQ(recipe.weight_decay, 0);
  EXPECT_EQ(recipe.batch_size, 4);
  EXPECT_EQ(recipe.batch_tokens, 0);
  EXPECT_EQ(recipe.max_length, 32);
  EXPECT_EQ(recipe.threads, 2);
  EXPECT_EQ(recipe.seed, 9u);  // --set comes last
}

TEST(Recipe, MistakesInFlagsNameTheFlag) {
  Json args = Json::parse(R"({"model":"m","task":"classify","train":["t"],"columns":"text"})");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { recipe_from_flags(args, {}); }),
            "--columns text: expected role=column, as in text=description,label=section");
  args = Json::parse(R"({"model":"m","task":"classify","train":["t"],"lr":-1})");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { recipe_from_flags(args, {}); }).substr(0, 15),
            "--lr: train.lr:");
  args = Json::parse(R"({"model":"m","task":null,"train":["t"]})");
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { recipe_from_flags(args, {}); }),
            "training without a recipe file: --task is missing; give a recipe, or --model, --task "
            "and --train");
}

}  // namespace recipe_test
}  // namespace attune
