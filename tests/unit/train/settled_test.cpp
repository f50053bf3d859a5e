// train.best and train.patience while methods and policies are on their way to a result.
#include "support/toy_run.h"

namespace attune {
namespace settled_test {

class Score final : public Tally {
 public:
  explicit Score(double value) : value_(value) {}
  void measure(Model&, const Batch&, const std::vector<Example>&) override {}
  Json metrics() const override { return Json{{"accuracy", value_}}; }

 private:
  double value_;
};

/// Measures 1 after the first step, and less after every further one.
class FallingTask final : public ToyTask {
 public:
  explicit FallingTask(int64_t done) : done_(done) {}
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<Score>(1.0 / static_cast<double>(++done_));
  }

 private:
  mutable int64_t done_;  // evaluations so far
};

const ToyRun::Named kFull{{"full", Json::object()}};

/// Eight steps with an evaluation after each, from a checkpoint of `from` when there is one.
Trainer::Result falling(ToyRun& run, int64_t patience = 0, const ToyRun* from = nullptr,
                        int64_t step = 0) {
  run.config.eval_every = {Interval::Kind::Steps, 1};
  run.config.best_metric = "accuracy";
  run.config.patience = patience;
  std::filesystem::create_directories(run.folder.file("run/checkpoints"));
  if (from != nullptr) {
    const std::string name = fmt::format("run/checkpoints/step-{:06}", step);
    std::filesystem::copy(from->folder.file(name), run.folder.file(name),
                          std::filesystem::copy_options::recursive);
    std::filesystem::copy(from->folder.file("run/log.jsonl"), run.folder.file("run/log.jsonl"));
  }
  Progress progress(stderr, Progress::Mode::Quiet);
  const FallingTask task(step);
  Trainer trainer(run.config,
                  TrainParts{run.model, run.adaptation, task, *run.objective, run.policies,
                             run.data, run.data, Tensor(), run.folder.file("run"), [] {}},
                  progress);
  return trainer.run(from != nullptr);
}

TEST(Settled, TheKeptStateIsTheFirstAfterTheLastStage) {
  ToyRun plain(kFull);
  EXPECT_EQ(falling(plain).kept_step, 1);
  // The ticket is drawn before the fifth of eight steps.
  ToyRun ticket(kFull, {{"lottery_ticket", Json::object()}});
  EXPECT_EQ(falling(ticket).kept_step, 5);
  // The mask is fixed once 70 % of the run is done: after six steps.
  ToyRun adalora({{"adalora", Json{{"rank", 1}, {"init_rank", 2}}}});
  EXPECT_EQ(falling(adalora).kept_step, 6);
  ToyRun pruning({{"diff_pruning", Json{{"density", 0.2}}}});
  EXPECT_EQ(falling(pruning).kept_step, 4);
}

TEST(Settled, PatienceCountsFromTheLastStageOn) {
  ToyRun plain(kFull);
  EXPECT_EQ(falling(plain, 2).steps, 3);
  ToyRun ticket(kFull, {{"lottery_ticket", Json::object()}});
  const Trainer::Result result = falling(ticket, 2);
  EXPECT_EQ(result.kept_step, 5);
  EXPECT_EQ(result.steps, 7);
  EXPECT_TRUE(result.stopped_early);
}

TEST(Settled, AResumedRunKeepsTheSameState) {
  for (const int64_t step : {3, 4, 5, 6}) {
    ToyRun whole(kFull, {{"lottery_ticket", Json::object()}});
    ToyRun rest(kFull, {{"lottery_ticket", Json::object()}});
    falling(whole, 2);
    const Trainer::Result result = falling(rest, 2, &whole, step);
    EXPECT_EQ(result.kept_step, 5) << step;
    EXPECT_EQ(result.steps, 7) << step;
  }
}

class NeverDone final : public TrainingPolicy {
 public:
  bool settled() const override { return false; }
};

TEST(Settled, ARunThatEndsBeforeKeepsItsLastState) {
  ToyRun run(kFull);
  run.policies.push_back(std::make_unique<NeverDone>());
  EXPECT_EQ(falling(run, 2).kept_step, 8);
}

TEST(Settled, ABudgetThatTheRunNeverReachesIsRefused) {
  const Json options{
      {"rank", 1}, {"init_rank", 2}, {"total_steps", 20}, {"t_init", 2}, {"t_final", 11}};
  const std::string refusal =
      "adalora: total_steps 20: the final choice would be made at step 9, but the run has 8 steps, "
      "so no choice would ever be made for good; give a total_steps of at most the run's, or leave "
      "it out: the schedule then spans the run";
  // Two epochs of twelve examples, three a batch: eight steps.
  ToyRun epochs({{"adalora", options}});
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { epochs.train(); }), refusal);
  ToyRun steps({{"adalora", options}});
  steps.config.steps = 8;
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { steps.train(); }), refusal);
  ToyRun enough({{"adalora", options}});
  enough.config.steps = 9;
  EXPECT_EQ(enough.train().steps, 9);
  // Each epoch's last batch is short: 3 of them an epoch, two a step.
  ToyRun windows(
      {{"adalora",
        Json{{"rank", 1}, {"init_rank", 2}, {"total_steps", 5}, {"t_init", 1}, {"t_final", 1}}}});
  windows.config.batches.batch_size = 5;
  windows.config.accumulate = 2;
  EXPECT_NE(error_text(ErrorCode::BadInput, [&] { windows.train(); }).find("the run has 3 steps"),
            std::string::npos);
}

}  // namespace settled_test
}  // namespace attune
