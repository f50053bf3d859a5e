// What ends a training run, and what a mixture and cut rows leave in its state.
#include "base/file.h"
#include "support/toy_run.h"

namespace attune {
namespace trainer_errors_test {

TEST(TrainerErrors, WithoutTrainedTensorsThereIsNothingToDo) {
  ToyRun run(ToyRun::Named{});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { run.train(); }),
            "nothing to train: the methods of this recipe train no tensor");
}

TEST(TrainerErrors, AStateThatIsNotFiniteIsNotSaved) {
  ToyRun run({{"bias", Json::object()}});
  run.config.lr = 1e308;
  run.config.schedule.kind = Schedule::Kind::Constant;
  run.config.clip = 0;
  const std::string text = error_text(run.folder, ErrorCode::Diverged, [&] { run.train(); });
  EXPECT_EQ(text.find("training: the "), 0u) << text;
  EXPECT_NE(text.find("run/checkpoints is kept. Lower train.lr (now 1e+308)"), std::string::npos)
      << text;
  EXPECT_EQ(run_checkpoints(run.folder.file("run")), std::vector<std::string>());
}

TEST(TrainerMixture, ResumedRunsDrawTheSame) {
  const auto mixed = [](ToyRun& run) {
    run.config.epochs = 3;
    run.config.batches.mixture = {{{0, 1, 2, 3, 4, 5, 6, 7, 8}, 1}, {{9, 10, 11}, 2}};
  };
  ToyRun whole({{"bias", Json::object()}}), resumed({{"bias", Json::object()}});
  mixed(whole);
  mixed(resumed);
  EXPECT_EQ(whole.train().examples, 36);
  resumed.resume_from(whole, 5);
  EXPECT_TRUE(same(whole.trained(), resumed.trained()));
}

TEST(TrainerMixture, ALogIsOnTheDiskAsFarAsItsCheckpointsSay) {
  ToyRun run({{"bias", Json::object()}});
  run.config.log_every = 1;
  run.train();
  const size_t size = read_file(run.folder.file("run/log.jsonl")).size();
  size_t last = 0;
  for (const std::string& checkpoint : run_checkpoints(run.folder.file("run"))) {
    const size_t bytes = read_json(checkpoint + "/state.json")["log_bytes"].get<size_t>();
    EXPECT_GT(bytes, last);
    EXPECT_LE(bytes, size);
    last = bytes;
  }
  EXPECT_EQ(last, size);
}

}  // namespace trainer_errors_test
}  // namespace attune
