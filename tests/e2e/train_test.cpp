// The whole path: train, resume, eval, predict, merge, export, and what a run directory holds.
#include "e2e/workshop.h"

namespace attune {

namespace train_test {

using Train = Workshop;
using Tasks = Workshop;
using Listing = Workshop;

TEST_F(Train, ARecipeLeavesTheRunDirectoryThatIsPromised) {
  const Json result = attune_json(train_args({}));
  EXPECT_LT(result["last_loss"], result["first_loss"]);
  for (const char* name :
       {"run/recipe.yaml", "run/run.json", "run/log.jsonl", "run/trainer_state.json",
        "run/adapter/attune.json", "run/adapter/attune.safetensors",
        "run/checkpoints/step-000060/state.safetensors"})
    EXPECT_TRUE(exists(name)) << name;
  EXPECT_FALSE(exists("run/model"));
  const Json record = json("run/run.json");
  for (const char* key :
       {"metrics", "seed", "costs", "peak_bytes", "versions", "machine", "sha256", "kept", "steps"})
    EXPECT_TRUE(record.contains(key)) << key;
  EXPECT_TRUE(record["metrics"].contains("accuracy") && record["metrics"].contains("macro_f1"));
  for (const char* key : {"model", "tokenizer", "data"})
    EXPECT_EQ(record["sha256"][key].get<std::string>().size(), 64U);
  int64_t steps = 0, evaluations = 0, events = 0;
  for (const Json& line : lines("run/log.jsonl")) {
    evaluations += line.contains("eval") ? 1 : 0;
    if (line.contains("eval")) continue;
    EXPECT_EQ(line["step"], ++steps);
    for (const char* key : {"epoch", "loss", "lr", "grad_norm", "tokens_per_second", "peak_bytes"})
      EXPECT_TRUE(line.contains(key)) << key;
  }
  EXPECT_EQ(steps, 60);
  EXPECT_EQ(evaluations, 3);
  for (const std::filesystem::directory_entry& entry :
       std::filesystem::directory_iterator(folder_ / "run"))
    events += entry.path().filename().string().rfind("events.out.tfevents.", 0) == 0 ? 1 : 0;
  EXPECT_EQ(events, 1);
  EXPECT_EQ(json("run/trainer_state.json")["global_step"], 60);
  EXPECT_EQ(left_overs("run"), std::vector<std::string>());
}

TEST_F(Train, TheResolvedRecipeRepeatsTheRunBitForBit) {
  ASSERT_EQ(train({}).status, 0);
  const Outcome again = attune({"train", "run/recipe.yaml", "--set", "output=again"});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(read("run/adapter/attune.safetensors"), read("again/adapter/attune.safetensors"));
}

TEST_F(Train, ResumingAFinishedRunChangesNothing) {
  ASSERT_EQ(train({}).status, 0);
  const std::string tensors = read("run/adapter/attune.safetensors"), log = read("run/log.jsonl");
  Json before = json("run/run.json");
  const Json result = attune_json({"resume", "run"});
  EXPECT_EQ(result["steps"], 60);
  EXPECT_EQ(read("run/adapter/attune.safetensors"), tensors);
  EXPECT_EQ(read("run/log.jsonl"), log);
  Json after = json("run/run.json");
  before.erase("peak_bytes");  // of another process
  after.erase("peak_bytes");
  EXPECT_EQ(before, after);
}

TEST_F(Train, FlagsAloneMakeARecipeAndRunIt) {
  const Outcome outcome =
      attune({"train", "--model", "model", "--task", "classify", "--train", "train.jsonl", "--eval",
              "10%", "--method", "lora", "--epochs", "1", "--batch-size", "8", "--output", "flags",
              "--set", "train.precision=fp32"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("recipe made from the flags:\n"), std::string::npos) << outcome.err;
  EXPECT_TRUE(exists("flags/adapter/attune.safetensors"));
}

TEST_F(Train, QuietPrintsNothingButTheResult) {
  std::vector<std::string> args = train_args({});
  args.push_back("--quiet");
  const Outcome outcome = attune(args);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "");
}

TEST_F(Train, FullFineTuningLeavesACheckpointThatIsAModel) {
  const Json result = attune_json(train_args({"methods=[]", "train.lr=3e-3"}));
  EXPECT_LT(result["last_loss"], result["first_loss"]);
  ASSERT_TRUE(exists("run/model/model.safetensors") && exists("run/model/tokenizer.json"));
  const Json of_run = attune_json({"eval", "run", "--data", "train.jsonl"});
  const Json of_model = attune_json({"eval", "run/model", "--data", "train.jsonl"});
  EXPECT_EQ(of_run["accuracy"], of_model["accuracy"]);
}

TEST_F(Train, WhatNoPlainCheckpointCanHoldIsSaidAndTheRunIsWhole) {
  const Outcome outcome = train({"methods=[full, {adapter: {}}]", "train.steps=3"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("there is no run/model"), std::string::npos) << outcome.err;
  EXPECT_FALSE(exists("run/model"));
  EXPECT_EQ(left_overs("run"), std::vector<std::string>());
  const Json eval = attune_json({"eval", "run", "--data", "train.jsonl"});
  EXPECT_EQ(eval["examples"], 240);
}

TEST_F(Train, ARunIsEvaluatedPredictedMergedAndExported) {
  ASSERT_EQ(train({}).status, 0);
  const Json metrics = attune_json({"eval", "run", "--data", "train.jsonl"});
  EXPECT_GT(metrics["accuracy"], 0.8);
  EXPECT_EQ(metrics["examples"], 240);

  const std::string input = "{\"text\": \"the happy house\"}\n{\"text\": \"a sad old road\"}\n";
  write("two.jsonl", input);
  const Outcome by_file = attune({"predict", "run", "--data", "two.jsonl"});
  const Outcome by_pipe = attune({"predict", "run", "--data", "-"}, input);
  const Outcome by_text =
      attune({"predict", "run", "--text", "the happy house", "--text", "a sad old road"});
  EXPECT_EQ(by_file.status, 0) << by_file.err;
  EXPECT_EQ(by_file.out, by_pipe.out) << by_pipe.err;
  EXPECT_EQ(by_file.out, by_text.out) << by_text.err;
  EXPECT_EQ(std::count(by_file.out.begin(), by_file.out.end(), '\n'), 2);
  EXPECT_EQ(Json::parse(by_file.out.substr(0, by_file.out.find('\n')))["label"], "good");
  EXPECT_EQ(attune({"predict", "run", "--data", "two.jsonl", "--output", "two.out"}).out, "");
  EXPECT_EQ(read("two.out"), by_file.out);

  attune_json({"merge", "run", "-o", "merged"});
  EXPECT_EQ(attune_json({"eval", "merged", "--data", "train.jsonl"})["accuracy"],
            metrics["accuracy"]);
  attune_json({"export", "run", "--to", "hf", "-o", "hf"});
  EXPECT_EQ(read("hf/model.safetensors"), read("merged/model.safetensors"));
  attune_json({"export", "run", "--to", "peft", "-o", "peft"});
  EXPECT_TRUE(exists("peft/adapter_config.json") && exists("peft/adapter_model.safetensors"));
  expect_refused(attune({"merge", "run", "-o", "merged"}), 2,
                 {"the output directory merged exists already"});
  attune_json({"merge", "run", "-o", "merged", "--overwrite"});
  expect_refused(attune({"merge", "run"}), 2, {"-o DIR is missing"});
}

TEST_F(Train, WeightsKeptInFourBitsAreTrainedOnEvaluatedMergedAndExported) {
  ASSERT_EQ(train({"storage=nf4"}).status, 0);
  EXPECT_EQ(Json::parse(read("run/adapter/attune.json"))["storage"], "nf4");
  const Json metrics = attune_json({"eval", "run", "--data", "train.jsonl"});
  EXPECT_GT(metrics["accuracy"], 0.8);
  const Outcome exported = attune({"export", "run", "--to", "peft", "-o", "peft"});
  EXPECT_EQ(exported.status, 0) << exported.err;
  EXPECT_NE(exported.out.find("trained on weights kept as nf4 codes"), std::string::npos)
      << exported.out;
  attune_json({"merge", "run", "-o", "merged"});
  EXPECT_EQ(attune_json({"eval", "merged", "--data", "train.jsonl"})["accuracy"],
            metrics["accuracy"]);
  expect_refused(attune({"train", "recipe.yaml", "--set", "storage=nf4", "--set", "methods=[full]",
                         "--set", "output=other"}),
                 5, {"kept as nf4 codes, which cannot be trained"});
  expect_refused(attune({"train", "recipe.yaml", "--set", "storage=nf5", "--set", "output=other"}),
                 2, {"there is no storage \"nf5\"; did you mean \"nf4\"?"});
}

TEST_F(Train, ARunIsInspectedAndItsActivationsAreWritten) {
  ASSERT_EQ(train({"train.steps=5"}).status, 0);
  EXPECT_EQ(attune_json({"inspect", "run"})["model_type"], "bert");
  EXPECT_EQ(attune_json({"inspect", "model", "*.self.[qv]"})["sites"].size(), 4U);
  write("one.jsonl", "{\"text\": \"the happy house\"}\n");
  const Json written = attune_json({"forward", "run", "--input", "one.jsonl", "--want",
                                    "logits,final", "-o", "one.safetensors"});
  EXPECT_EQ(written["tensors"], 2);
  const std::string bytes = read("one.safetensors");
  EXPECT_NE(bytes.find("0/logits"), std::string::npos);
  const Outcome tokens = attune({"tokenize", "model", "--text", "the happy house"});
  EXPECT_EQ(tokens.status, 0) << tokens.err;
  const Json line = Json::parse(tokens.out);
  for (const char* key : {"ids", "tokens", "offsets", "word_ids", "special_tokens_mask", "text"})
    EXPECT_TRUE(line.contains(key)) << key;
}

TEST_F(Train, CheckFindsNoProblemAndTrainsNothing) {
  const Json found = attune_json({"check", "recipe.yaml"});
  EXPECT_EQ(found["ok"], true);
  EXPECT_EQ(found["rows"]["train"], 216);
  EXPECT_FALSE(exists("run"));
}

TEST_F(Train, EarlyStoppingKeepsTheBestAndAResumeDoesNotGoOn) {
  const Json result = attune_json(train_args({"train.best={metric: accuracy, patience: 2}",
                                              "train.eval_every={steps: 2}", "train.lr=1e-7"}));
  EXPECT_EQ(result["stopped_early"], true);
  const Json again = attune_json({"resume", "run"});
  EXPECT_EQ(again["steps"], result["steps"]);
  EXPECT_EQ(again["kept"], result["kept"]);
  EXPECT_EQ(again["metrics"], result["metrics"]);
}

std::vector<double> losses_of(const std::vector<Json>& log) {
  std::vector<double> losses;
  for (const Json& record : log)
    if (record.contains("loss")) losses.push_back(record["loss"].get<double>());
  return losses;
}

/// Mean of ten losses.
double mean(const std::vector<double>& losses, size_t first) {
  double sum = 0;
  for (size_t i = first; i < first + 10; ++i) sum += losses.at(i);
  return sum / 10;
}

/// Trains a task on rows of its own and expects the loss to fall.
#define ATTUNE_TASK_LEARNS(name, task, rows)                                                       \
  TEST_F(Tasks, name) {                                                                            \
    write("train.jsonl", rows(240, 3));                                                            \
    const Json result =                                                                            \
        attune_json(train_args({"task=" task, "methods=[]", "train.lr=3e-3", "train.steps=100"})); \
    EXPECT_EQ(result["steps"], 100);                                                               \
    const std::vector<double> losses = losses_of(lines("run/log.jsonl"));                          \
    EXPECT_LT(mean(losses, 90), 0.9 * mean(losses, 0));                                            \
    const Outcome measured = attune({"eval", "run", "--data", "train.jsonl"});                     \
    EXPECT_EQ(measured.status, 0) << measured.err;                                                 \
  }
ATTUNE_TASK_LEARNS(ClassifyLearns, "classify", classify_rows)
ATTUNE_TASK_LEARNS(ClassifyMultiLearns, "classify_multi", multi_rows)
ATTUNE_TASK_LEARNS(RegressLearns, "regress", regress_rows)
ATTUNE_TASK_LEARNS(PairLearns, "pair", pair_rows)
ATTUNE_TASK_LEARNS(TagLearns, "tag", tag_rows)
#undef ATTUNE_TASK_LEARNS

TEST_F(Listing, EveryListIsJson) {
  for (const char* command : {"methods", "archs", "tasks", "objectives", "policies", "metrics"})
    EXPECT_FALSE(attune_json({command})[command].empty()) << command;
  EXPECT_EQ(attune_json({"methods", "lora"})["name"], "lora");
  EXPECT_EQ(attune_json({"doctor"})["ok"], true);
}

}  // namespace train_test
}  // namespace attune
