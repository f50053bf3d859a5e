// init_from: a run that starts from the values of another; dropout of the head.
#include "base/text.h"
#include "e2e/workshop.h"

namespace attune {

namespace {

/// Trained, but by so little that no value changes.
const std::vector<std::string> kStill = {"train.steps=1", "train.lr=1e-30", "output=still"};

class WarmStart : public Workshop {
 protected:
  void SetUp() override {
    Workshop::SetUp();
    ASSERT_EQ(train({"output=first", "train.steps=30"}).status, 0);
  }
  /// Trains nothing on top of `first`.
  Outcome start(const std::vector<std::string>& sets) const {
    std::vector<std::string> all = kStill;
    all.push_back("init_from=first");
    all.insert(all.end(), sets.begin(), sets.end());
    return train(all);
  }
  void refused(const std::vector<std::string>& sets, int status,
               const std::vector<std::string>& parts) const {
    expect_refused(start(sets), status, parts);
    EXPECT_FALSE(exists("still"));
  }
};

std::string tensors(const std::string& run) {
  return run + "/adapter/attune.safetensors";
}

}  // namespace

TEST_F(WarmStart, TheValuesOfTheOtherRunAreTheStart) {
  const Outcome outcome = start({"train.seed=7"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(read(tensors("still")), read(tensors("first")));
  EXPECT_NE(outcome.err.find("start      from first\n"), std::string::npos) << outcome.err;
  const std::string text = "the happy house";
  EXPECT_EQ(attune({"predict", "still", "--text", text}).out,
            attune({"predict", "first", "--text", text}).out);
}

TEST_F(WarmStart, FullFineTuningAndSeededMethodsStartToo) {
  for (const char* methods : {"[]", "[{vera: {rank: 4}}]"}) {
    const std::string set = std::string("methods=") + methods;
    ASSERT_EQ(train({set, "output=a", "train.steps=5", "train.lr=1e-3"}).status, 0) << methods;
    ASSERT_EQ(start({set, "init_from=a", "train.seed=9"}).status, 0) << methods;
    EXPECT_EQ(read(tensors("still")), read(tensors("a"))) << methods;
    EXPECT_EQ(attune({"predict", "still", "--text", "happy"}).out,
              attune({"predict", "a", "--text", "happy"}).out)
        << methods;
    std::filesystem::remove_all(folder_ / "a");
    std::filesystem::remove_all(folder_ / "still");
  }
}

TEST_F(WarmStart, LabelsKeepTheOrderOfTheOtherRun) {
  // The first row decides the order of labels where there is no other run.
  write("train.jsonl", "{\"text\": \"sad\", \"label\": \"bad\"}\n" + classify_rows(60, 2));
  const Json first = json("first/adapter/attune.json")["task_state"]["labels"];
  ASSERT_EQ(start({}).status, 0);
  EXPECT_EQ(json("still/adapter/attune.json")["task_state"]["labels"], first);
  EXPECT_EQ(read(tensors("still")), read(tensors("first")));
}

TEST_F(WarmStart, OtherLabelsGetANewHead) {
  std::string rows = classify_rows(60, 2);
  for (size_t at; (at = rows.find("\"good\"")) != std::string::npos;)
    rows.replace(at, 6, "\"fine\"");
  write("train.jsonl", rows);
  const Outcome outcome = start({});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("the head starts anew, for its labels are others"), std::string::npos)
      << outcome.err;
  EXPECT_EQ(json("still/adapter/attune.json")["task_state"]["labels"].size(), 2u);
  EXPECT_NE(read(tensors("still")), read(tensors("first")));
}

TEST_F(WarmStart, ARunDoesNotReplaceTheOneItStartsFrom) {
  std::vector<std::string> args = train_args({"init_from=first", "output=first", "train.steps=1"});
  args.insert(args.end(), {"--overwrite", "--quiet"});
  expect_refused(attune(args), 2, {"init_from: first and the output first are the same run"});
  EXPECT_TRUE(exists(tensors("first")));
}

TEST_F(WarmStart, ResumingDoesNotNeedTheOtherRun) {
  ASSERT_EQ(train({"init_from=first", "output=a", "train.steps=9"}).status, 0);
  ASSERT_EQ(train({"init_from=first", "output=b", "train.steps=9"}).status, 0);
  EXPECT_EQ(read(tensors("a")), read(tensors("b")));
  std::filesystem::remove_all(folder_ / "first");
  std::filesystem::remove_all(folder_ / "a/checkpoints/step-00000009");
  std::filesystem::remove_all(folder_ / "b/checkpoints");
  for (const char* run : {"a", "b"}) {
    const std::string before = read(tensors(run));
    const Outcome outcome = attune({"resume", run});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(read(tensors(run)), before) << run;
  }
}

TEST_F(WarmStart, DropoutOfTheHeadIsTheRecipes) {
  const auto loss = [&](const std::string& head) {
    std::filesystem::remove_all(folder_ / "d");
    return attune_json(train_args({"output=d", "train.steps=1", "head=" + head}))["first_loss"]
        .get<double>();
  };
  const double own = loss("{pool: mean}");
  EXPECT_EQ(loss("{pool: mean, dropout: 0.1}"), own);  // the checkpoint's
  EXPECT_NE(loss("{pool: mean, dropout: 0}"), own);
  EXPECT_NE(loss("{pool: mean, dropout: 0.9}"), own);
}

}  // namespace attune
