// A run that is stopped at any moment ends, once resumed, with the same bytes as one that never
// was.
#include <signal.h>

#include <chrono>
#include <random>
#include <thread>

#include "e2e/workshop.h"

namespace attune {

namespace kill_test {

constexpr const char* kResult = "/adapter/attune.safetensors";
constexpr int kTries = 100;  // runs at most, of which enough have to be killed in time

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Killed : public Workshop {
 protected:
  /// Trains run "whole" without a stop, and notes how long it took: where kills are first drawn
  /// from.
  void train_whole(const std::vector<std::string>& sets) {
    sets_ = sets;
    const double started = seconds();
    const Outcome outcome = start("whole").wait();
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    duration_ = seconds() - started;
    expected_ = read(std::string("whole") + kResult);
  }

  struct Started {
    std::unique_ptr<Child> child;
    Outcome wait() { return child->wait(); }
  };

  Started start(const std::string& run) const {
    std::vector<std::string> sets = sets_;
    sets.push_back("output=" + run);
    if (exists(run + "/recipe.yaml"))
      return {std::make_unique<Child>(folder_.string(), std::vector<std::string>{"resume", run})};
    return {std::make_unique<Child>(folder_.string(), train_args(sets))};
  }

  /// Kills the run after `part` of the time it takes; true when it was still running. A run that
  /// was faster says how long one takes from here on, so that drawing again ends in a kill however
  /// unevenly the machine runs.
  bool kill_within(const std::string& run, double part) {
    const double delay = part * duration_;
    Started started = start(run);
    std::this_thread::sleep_for(std::chrono::duration<double>(delay));
    started.child->kill(SIGKILL);
    if (started.wait().signal == SIGKILL) return true;
    duration_ = delay;
    return false;
  }

  void expect_same_end(const std::string& run) const {
    const Outcome outcome = start(run).wait();
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(read(run + kResult), expected_) << run << ": the tensors differ";
    EXPECT_EQ(steps_of(run), steps_of("whole")) << run;
    EXPECT_EQ(left_overs(run), std::vector<std::string>());
  }

  /// The logged steps, in order, evaluations apart.
  std::vector<std::string> steps_of(const std::string& run) const {
    std::vector<std::string> steps;
    for (const Json& record : lines(run + "/log.jsonl"))
      steps.push_back((record.contains("eval") ? "eval " : "step ") + record["step"].dump() +
                      (record.contains("loss") ? " " + record["loss"].dump() : ""));
    return steps;
  }

  void stop_with(int signal, int status) {
    train_whole({"train.steps=600", "train.save_every={steps: 60}", "train.eval_every=never"});
    Started started = start("stopped");
    while (!exists("stopped/checkpoints/step-000060") && started.child->running())
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    started.child->kill(signal);
    const Outcome outcome = started.wait();
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_NE(outcome.err.find("attune resume stopped"), std::string::npos) << outcome.err;
    EXPECT_FALSE(exists("stopped/run.json"));
    expect_same_end("stopped");
  }

  std::vector<std::string> sets_;
  double duration_ = 0;
  std::string expected_;
};

TEST_F(Killed, TwentyTimesAtRandomMomentsEndsWithTheSameBytes) {
  train_whole({});
  std::mt19937 draw(7);
  int killed = 0;
  for (int i = 0; i < kTries && killed < 20 && !HasFailure(); ++i) {
    const std::string run = "killed-" + std::to_string(i);
    double part = 0.1 + 0.85 * (draw() % 1000) / 1000.0;
    for (int again = 0; again < 3 && kill_within(run, part); ++again) {
      if (again == 0) ++killed;
      part = 0.2 + 0.5 * (draw() % 1000) / 1000.0;
      if (draw() % 2 == 0) break;
    }
    expect_same_end(run);
    std::filesystem::remove_all(folder_ / run);
  }
  EXPECT_EQ(killed, 20);
}

TEST_F(Killed, BeforeItsRecipeStoodARunBeginsAnew) {
  train_whole({});
  for (const char* run : {"early", "other"}) std::filesystem::create_directory(folder_ / run);
  write("early/.lock", "1");
  write("early/recipe.yaml.tmp.1", "model: ");
  expect_same_end("early");
  write("other/recipe.yaml.tmp.1", "model: ");  // no lock: not a run's
  EXPECT_EQ(start("other").wait().status, 2);
}

TEST_F(Killed, InsideASaveEndsWithTheSameBytes) {
  train_whole({"train.save_every={steps: 1}", "train.steps=25", "train.eval_every={steps: 5}",
               "train.best=accuracy"});
  int inside = 0;
  for (int i = 0; i < kTries && inside < 6 && !HasFailure(); ++i) {
    const std::string run = "inside-" + std::to_string(i);
    Started started = start(run);
    // A save has begun when its hidden folder is there; a few tenths of a millisecond more move the
    // moment within it.
    const std::string writing = ".writing-step-00000" + std::to_string(2 + inside);
    while (!exists(run + "/checkpoints/" + writing) && started.child->running())
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    std::this_thread::sleep_for(std::chrono::microseconds(300 * inside));
    started.child->kill(SIGKILL);
    inside += started.wait().signal == SIGKILL ? 1 : 0;
    expect_same_end(run);
  }
  EXPECT_EQ(inside, 6);
}

TEST_F(Killed, FullFineTuningWithDropoutAndAccumulationEndsWithTheSameBytes) {
  train_whole({"methods=[]", "train.steps=20", "train.lr=1e-3", "train.accumulate=2"});
  bool killed = false;
  for (int i = 0; i < kTries && !killed; ++i) {
    std::filesystem::remove_all(folder_ / "full");
    killed = kill_within("full", 0.6);
  }
  EXPECT_TRUE(killed);
  expect_same_end("full");
  EXPECT_EQ(read("full/model/model.safetensors"), read("whole/model/model.safetensors"));
}

TEST_F(Killed, WithDropoutEverywhereEndsWithTheSameBytes) {
  // Dropout of the checkpoint's blocks, of the head and of the method; a mixture of two files.
  write("more.jsonl", classify_rows(40, 5));
  train_whole({"methods.0.lora.dropout=0.3", "head={pool: mean, dropout: 0.4}",
               "train.accumulate=2",
               "data.train=[{path: train.jsonl, weight: 1}, {path: more.jsonl, weight: 2}]",
               "data.max_length=8"});
  std::mt19937 draw(11);
  int killed = 0;
  for (int i = 0; i < kTries && killed < 5 && !HasFailure(); ++i) {
    const std::string run = "dropout-" + std::to_string(i);
    killed += kill_within(run, 0.2 + 0.7 * (draw() % 1000) / 1000.0) ? 1 : 0;
    expect_same_end(run);
    EXPECT_EQ(json(run + "/run.json")["rows_cut"], json("whole/run.json")["rows_cut"]);
  }
  EXPECT_EQ(killed, 5);
}

TEST_F(Killed, DropoutChangesTheResult) {
  // Otherwise the test above would say nothing.
  train_whole({"train.steps=5"});
  sets_ = {"train.steps=5", "methods.0.lora.dropout=0.3"};
  ASSERT_EQ(start("other").wait().status, 0);
  EXPECT_NE(read(std::string("other") + kResult), expected_);
}

TEST_F(Killed, AnInterruptSavesAndSaysHowToGoOn) {
  stop_with(SIGINT, 130);
}

TEST_F(Killed, ATerminationSavesAndSaysHowToGoOn) {
  stop_with(SIGTERM, 143);
}

TEST_F(Killed, ADamagedCheckpointIsSkippedWithAWord) {
  train_whole({"train.steps=12"});
  sets_ = {"train.steps=12"};
  ASSERT_EQ(train({"train.steps=12", "output=damaged"}).status, 0);
  const std::string newest = "damaged/checkpoints/step-000012/state.safetensors";
  std::string bytes = read(newest);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write(newest, bytes);
  const Outcome outcome = attune({"resume", "damaged"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("skipping the damaged checkpoint damaged/checkpoints/step-000012"),
            std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.err.find("going on from step 9"), std::string::npos) << outcome.err;
  EXPECT_EQ(read(std::string("damaged") + kResult), expected_);
}

TEST_F(Killed, ASecondProcessOnTheSameRunIsRefused) {
  sets_ = {"train.steps=4000", "train.save_every=never"};
  Started first = start("busy");
  while (!exists("busy/log.jsonl") && first.child->running())
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  expect_refused(attune({"resume", "busy", "--quiet"}), 10,
                 {"busy is in use by another attune (process "});
  std::vector<std::string> args = train_args({"output=busy"});
  args.insert(args.end(), {"--overwrite", "--quiet"});
  expect_refused(attune(args), 10, {"busy is in use"});
  EXPECT_TRUE(first.child->running());
}

}  // namespace kill_test
}  // namespace attune
