#include "train/run_state.h"

#include "base/file.h"
#include "base/log.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace run_state_test {

RunState state_of(int64_t step) {
  RunState state;
  state.step = step;
  state.examples = 17.5;
  state.position = {1, 2, 3};
  state.seconds = 4.25;
  state.evals = 5;
  state.saves = 6;
  state.best = -0.125;
  state.has_best = true;
  state.best_step = 7;
  state.worse_evals = 8;
  state.log_bytes = 9;
  state.tokens = 10;
  state.policies = {"one", ""};
  state.moments = {"a", "b"};
  state.cut_rows = 13;
  state.sources = Json{{"model", "ab"}, {"eval_on", Json{{"dev", "cd"}}}};
  state.eval_on = Json{{"dev", Json{{"accuracy", 0.5}}}};
  state.history = Json::array({Json{{"step", 1}, {"loss", 0.1}}});
  return state;
}

NamedTensors tensors_of(double value) {
  return {{"weight", at::full({2, 3}, value, at::kFloat)},
          {"steps", at::full({1}, static_cast<int64_t>(value), at::kLong)}};
}

TensorsOf given(const NamedTensors& tensors) {
  return [tensors](const RunState&) { return tensors; };
}

bool equal(const NamedTensors& a, const NamedTensors& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!at::equal(a[i].second, b[i].second)) return false;
  return true;
}

/// Collects warnings while it lives.
class Warnings {
 public:
  Warnings() {
    set_log_sink([this](LogLevel, const std::string& text) { texts.push_back(text); });
  }
  ~Warnings() { set_log_sink({}); }
  std::vector<std::string> texts;
};

TEST(RunState, ComesBackAsItWasSaved) {
  const TempFolder folder;
  save_run_state(folder.path(), state_of(12), tensors_of(3), 2);
  const NamedTensors tensors = tensors_of(0);
  const RunState got = load_run_state(folder.path(), given(tensors)), expected = state_of(12);
  EXPECT_TRUE(equal(tensors, tensors_of(3)));
  EXPECT_EQ(got.step, 12);
  EXPECT_EQ(got.examples, expected.examples);
  EXPECT_EQ(got.position.epoch, 1);
  EXPECT_EQ(got.position.window, 2);
  EXPECT_EQ(got.position.batch, 3);
  EXPECT_EQ(got.seconds, expected.seconds);
  EXPECT_EQ(got.evals, 5);
  EXPECT_EQ(got.saves, 6);
  EXPECT_EQ(got.best, -0.125);
  EXPECT_TRUE(got.has_best);
  EXPECT_EQ(got.best_step, 7);
  EXPECT_EQ(got.worse_evals, 8);
  EXPECT_EQ(got.log_bytes, 9);
  EXPECT_EQ(got.tokens, 10);
  EXPECT_EQ(got.policies, expected.policies);
  EXPECT_EQ(got.moments, expected.moments);
  EXPECT_EQ(got.cut_rows, expected.cut_rows);
  EXPECT_EQ(got.eval_on, expected.eval_on);
  EXPECT_EQ(got.history, expected.history);
  EXPECT_EQ(got.sources, expected.sources);
}

TEST(RunState, OnlyTheNewestAreKeptInOrderOfTheirSteps) {
  const TempFolder folder;
  for (const int64_t step : {1, 2, 10, 100})
    save_run_state(folder.path(), state_of(step), tensors_of(1), 2);
  const std::vector<std::string> kept = run_checkpoints(folder.path());
  ASSERT_EQ(kept.size(), 2u);
  EXPECT_EQ(kept[0], folder.file("checkpoints/step-000010"));
  EXPECT_EQ(kept[1], folder.file("checkpoints/step-000100"));
}

TEST(RunState, LongerNamesOfEarlierVersionsAreReadInTheOrderOfTheirNumbers) {
  const TempFolder folder;
  save_run_state(folder.path(), state_of(7), tensors_of(7), 9);
  std::filesystem::rename(folder.file("checkpoints/step-000007"),
                          folder.file("checkpoints/step-00000007"));
  for (const int64_t step : {5, 12, 1000000})
    save_run_state(folder.path(), state_of(step), tensors_of(step == 12 ? 12 : 5), 9);
  std::vector<std::string> names;
  for (const std::string& path : run_checkpoints(folder.path()))
    names.push_back(std::filesystem::path(path).filename().string());
  EXPECT_EQ(names, (std::vector<std::string>{"step-000005", "step-00000007", "step-000012",
                                             "step-1000000"}));
  std::filesystem::remove_all(folder.file("checkpoints/step-1000000"));
  std::filesystem::remove_all(folder.file("checkpoints/step-000012"));
  const NamedTensors tensors = tensors_of(0);
  EXPECT_EQ(load_run_state(folder.path(), given(tensors)).step, 7);
  EXPECT_TRUE(equal(tensors, tensors_of(7)));
}

TEST(RunState, TheSameStepMayBeSavedAgain) {
  const TempFolder folder;
  save_run_state(folder.path(), state_of(3), tensors_of(1), 2);
  save_run_state(folder.path(), state_of(3), tensors_of(2), 2);
  const NamedTensors tensors = tensors_of(0);
  load_run_state(folder.path(), given(tensors));
  EXPECT_TRUE(equal(tensors, tensors_of(2)));
  EXPECT_EQ(run_checkpoints(folder.path()).size(), 1u);
}

/// Changes one byte of a file.
void damage(const std::string& path) {
  std::string bytes = read_file(path);
  bytes[bytes.size() - 1] = static_cast<char>(bytes[bytes.size() - 1] ^ 1);
  write_file_atomic(path, bytes);
}

TEST(RunState, ADamagedCheckpointIsSkippedForTheOneBefore) {
  for (const std::string name : {"state.safetensors", "state.json"}) {
    const TempFolder folder;
    Warnings warnings;
    save_run_state(folder.path(), state_of(1), tensors_of(1), 2);
    save_run_state(folder.path(), state_of(2), tensors_of(2), 2);
    const std::string path = folder.file("checkpoints/step-000002/" + name);
    if (name == "state.json") {
      write_file_atomic(path, read_file(path).substr(0, 20));
    } else {
      damage(path);
    }
    const NamedTensors tensors = tensors_of(0);
    EXPECT_EQ(load_run_state(folder.path(), given(tensors)).step, 1);
    EXPECT_TRUE(equal(tensors, tensors_of(1))) << "nothing of the damaged one may be left";
    ASSERT_EQ(warnings.texts.size(), 1u);
    EXPECT_NE(warnings.texts[0].find("skipping the damaged checkpoint"), std::string::npos)
        << warnings.texts[0];
    EXPECT_NE(warnings.texts[0].find("step-000002"), std::string::npos) << warnings.texts[0];
    const bool changed = name == "state.safetensors";
    EXPECT_EQ(
        warnings.texts[0].find("its SHA-256 is not the one in state.json") != std::string::npos,
        changed)
        << warnings.texts[0];
  }
}

TEST(RunState, ACheckpointOfAnotherModelIsSkipped) {
  const TempFolder folder;
  Warnings warnings;
  save_run_state(folder.path(), state_of(1), tensors_of(1), 2);
  error_text(ErrorCode::NotFound, [&] {
    load_run_state(folder.path(), given({{"other", at::zeros({1})}}));
  });
  error_text(ErrorCode::NotFound, [&] {
    load_run_state(folder.path(), given({{"weight", at::zeros({3, 2})}}));
  });
  ASSERT_EQ(warnings.texts.size(), 2u);
  EXPECT_NE(warnings.texts[0].find("tensor other is missing"), std::string::npos)
      << warnings.texts[0];
  EXPECT_NE(warnings.texts[1].find("tensor weight has another shape"), std::string::npos)
      << warnings.texts[1];
}

TEST(RunState, TheTensorsAreAskedForWithTheStateThatWasRead) {
  const TempFolder folder;
  save_run_state(folder.path(), state_of(5), tensors_of(2), 2);
  NamedTensors chosen;
  load_run_state(folder.path(), [&](const RunState& state) {
    if (state.moments == std::vector<std::string>{"a", "b"}) chosen = tensors_of(0);
    return chosen;
  });
  EXPECT_TRUE(equal(chosen, tensors_of(2)));
}

TEST(RunState, ARecipeThatDoesNotFitIsNoDamage) {
  const TempFolder folder;
  Warnings warnings;
  save_run_state(folder.path(), state_of(1), tensors_of(1), 2);
  save_run_state(folder.path(), state_of(2), tensors_of(2), 2);
  const std::string text = error_text(ErrorCode::BadInput, [&] {
    load_run_state(folder.path(), [](const RunState& state) -> NamedTensors {
      fail(ErrorCode::BadInput, "half: another seed at step {}", state.step);
    });
  });
  EXPECT_EQ(text, "half: another seed at step 2");
  EXPECT_TRUE(warnings.texts.empty());
}

TEST(RunState, AHalfWrittenFolderIsNotACheckpoint) {
  const TempFolder folder;
  std::filesystem::create_directories(folder.file("checkpoints/.writing-step-000009"));
  EXPECT_TRUE(run_checkpoints(folder.path()).empty());
  const std::string text =
      error_text(ErrorCode::NotFound, [&] { load_run_state(folder.path(), given({})); });
  EXPECT_NE(text.find("there is no complete checkpoint in " + folder.path() + "/checkpoints"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("--overwrite"), std::string::npos) << text;
}

}  // namespace run_state_test
}  // namespace attune
