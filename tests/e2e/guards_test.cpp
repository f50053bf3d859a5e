// What keeps a run from being mixed up with another, or from destroying what it is made from.
#include "base/hash.h"
#include "base/text.h"
#include "e2e/workshop.h"

namespace attune {

namespace guards_test {

class Guards : public Workshop {
 protected:
  /// A run whose result is its checkpoint after 3 of 6 steps.
  void interrupted(const std::string& run) const {
    ASSERT_EQ(train({"output=" + run, "train.steps=6", "data.eval=dev.jsonl",
                     "eval_on={more: more.jsonl}"})
                  .status,
              0);
    std::filesystem::remove_all(folder_ / run / "checkpoints/step-000006");
    std::filesystem::remove(folder_ / run / "run.json");
  }
  void SetUp() override {
    Workshop::SetUp();
    write("dev.jsonl", classify_rows(20, 2));
    write("more.jsonl", classify_rows(20, 3));
  }
  void resume_refused(const std::string& what) const {
    expect_refused(attune({"resume", "run", "--quiet"}), 2,
                   {"resuming run: the " + what + " is not what the run was begun with (SHA-256 "});
  }
};

TEST_F(Guards, ARunGoesOnWithTheFilesItBeganWithOnly) {
  interrupted("run");
  for (const auto& [file, what] :
       std::vector<std::pair<std::string, std::string>>{{"train.jsonl", "data of data.train"},
                                                        {"dev.jsonl", "data of eval"},
                                                        {"more.jsonl", "data of eval_on.more"}}) {
    const std::string before = read(file);
    write(file, classify_rows(file == "train.jsonl" ? 240 : 20, 9));
    resume_refused(what);
    write(file, before);
  }
  const std::string weights = read("model/model.safetensors");
  std::string other = weights;
  other[other.size() - 2] = static_cast<char>(other[other.size() - 2] ^ 1);
  write("model/model.safetensors", other);
  resume_refused("model");
  write("model/model.safetensors", weights);
  const Json result = attune_json({"resume", "run"});
  EXPECT_EQ(result["sha256"]["data"], sha256_file(path("train.jsonl")));
  EXPECT_EQ(result["sha256"]["eval"], sha256_file(path("dev.jsonl")));
  EXPECT_EQ(result["sha256"]["eval_on"]["more"], sha256_file(path("more.jsonl")));
}

TEST_F(Guards, ACheckpointThatKnowsNoHashesGoesOn) {
  interrupted("run");
  Json state = json("run/checkpoints/step-000003/state.json");
  state.erase("sources");
  write("run/checkpoints/step-000003/state.json", state.dump());
  EXPECT_EQ(attune_json({"resume", "run"})["steps"], 6);
}

TEST_F(Guards, OverwritingNeverTakesWhatTheRunIsMadeFrom) {
  ASSERT_EQ(train({"methods=[]", "train.steps=2", "train.lr=1e-3", "output=a"}).status, 0);
  write("a/rows.jsonl", classify_rows(20, 4));
  const auto refused = [&](const std::vector<std::string>& sets, const std::string& text) {
    std::vector<std::string> args = train_args(sets);
    args.insert(args.end(), {"--set", "output=a", "--overwrite", "--quiet"});
    expect_refused(attune(args), 2, {text + " lies in the output directory a"});
  };
  refused({"model=a/model"}, "model: a/model");
  refused({"model=a"}, "model: a");
  refused({"data.train=a/rows.jsonl"}, "data.train: a/rows.jsonl");
  refused({"data.eval=a/../a/rows.jsonl"}, "data.eval: a/../a/rows.jsonl");
  refused({"eval_on={dev: a/rows.jsonl}"}, "eval_on.dev: a/rows.jsonl");
  refused({"init_from=a"}, "init_from: a");
  EXPECT_TRUE(exists("a/model/model.safetensors"));
}

TEST_F(Guards, CheckWarnsOfAnOutputThatTrainWouldRefuse) {
  const Json first = attune_json({"check", "recipe.yaml"});
  ASSERT_EQ(first["methods"].size(), 1u);
  EXPECT_EQ(first["methods"][0]["method"], "lora");
  EXPECT_EQ(first["methods"][0]["sites"].size(), 12u);
  const Outcome text = attune({"check", "recipe.yaml"});
  EXPECT_NE(text.out.find("\nsites      lora: 12: enc.*.self.q (2), "), std::string::npos)
      << text.out;
  ASSERT_EQ(train({"train.steps=1"}).status, 0);
  const Outcome again = attune({"check", "recipe.yaml"});
  EXPECT_EQ(again.status, 0);
  EXPECT_NE(again.err.find("run holds a run already; train replaces it only with --overwrite"),
            std::string::npos)
      << again.err;
  std::filesystem::create_directories(path("other"));
  write("other/notes.txt", "mine");
  expect_refused(attune({"check", "recipe.yaml", "--set", "output=other", "--quiet"}), 2,
                 {"other"});
}

TEST_F(Guards, SetComesAfterTheFlags) {
  std::vector<std::string> args = train_args({"train.steps=1", "train.seed=7", "train.threads=1"});
  args.insert(args.end(), {"--seed", "5", "--threads", "2"});
  const Json result = attune_json(args);
  EXPECT_EQ(result["seed"], 7);
  EXPECT_EQ(result["machine"]["threads"], 1);
}

TEST_F(Guards, SkippedRowsAreListed) {
  std::string rows = classify_rows(60, 1);
  for (int i = 0; i < 12; ++i) rows += "{\"text\": \"no end\n";
  write("some.jsonl", rows);
  const Outcome outcome = train({"data.train=some.jsonl", "data.on_bad_row=skip", "train.steps=1"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("skipped 12 bad row(s):\n  some.jsonl:61:"), std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("\n  and 2 more\n"), std::string::npos) << outcome.err;
  const std::vector<std::string> listed = split(read("run/bad_rows.txt"), '\n');
  ASSERT_EQ(listed.size(), 13u);
  EXPECT_TRUE(starts_with(listed[11], "some.jsonl:72:")) << listed[11];
  EXPECT_EQ(json("run/run.json")["rows_skipped"], 12);
}

TEST_F(Guards, ARunWithAWholeCheckpointIsAModel) {
  ASSERT_EQ(train({"methods=[]", "train.steps=2", "train.lr=1e-3", "output=whole"}).status, 0);
  ASSERT_EQ(train({"train.steps=2", "output=part"}).status, 0);
  for (const char* model : {"whole", "whole/model"})
    ASSERT_EQ(train({std::string("model=") + model, "train.steps=2", "head={pool: auto}",
                     "output=on-" + std::to_string(std::string(model).size())})
                  .status,
              0);
  EXPECT_EQ(read("on-5/adapter/attune.safetensors"), read("on-11/adapter/attune.safetensors"));
  EXPECT_EQ(attune({"predict", "on-5", "--text", "happy"}).status, 0);
  std::vector<std::string> args = train_args({"model=part", "output=x"});
  args.emplace_back("--quiet");
  expect_refused(
      attune(args), 2,
      {"looking for the model \"part\": it holds an adapter, not a whole checkpoint; fold "
       "it in (attune merge part -o DIR)"});
}

}  // namespace guards_test
}  // namespace attune
