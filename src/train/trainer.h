#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/adaptation.h"
#include "core/objective.h"
#include "core/policy.h"
#include "io/run_files.h"
#include "report/progress.h"
#include "report/tensorboard.h"
#include "tasks/task.h"
#include "train/evaluate.h"
#include "train/loader.h"
#include "train/optimizer.h"
#include "train/run_state.h"
#include "train/schedule.h"

namespace attune {

struct TrainConfig {
  double epochs = 3;  // one of epochs, steps, minutes is positive
  int64_t steps = 0;
  double minutes = 0;
  SamplerOptions batches;
  int64_t accumulate = 1;
  AdamWOptions adamw;
  double lr = 1e-4;
  Schedule schedule;
  double clip = 1;  // 0: off
  Interval eval_every, save_every;
  int64_t log_every = 10;
  int64_t keep = 2;
  std::string best_metric;  // "": the last state is the result; NAME/metric: of a further set
  int64_t patience = 0;     // evaluations without improvement before the run stops; 0: never
  uint64_t seed = 1;
  int64_t eval_batch_tokens = 4096;
};

/// What a trainer works on; everything outlives it.
struct TrainParts {
  Model& model;
  Adaptation& adaptation;
  const Task& task;
  Objective& objective;
  std::vector<std::unique_ptr<TrainingPolicy>>& policies;
  DataView train;
  DataView eval;                        // may be empty
  Tensor class_weights;                 // or undefined
  std::string run;                      // the run directory
  std::function<void()> save_result;    // writes RUN/adapter from the current state
  std::vector<NamedView> eval_on = {};  // further evaluation sets
  /// SHA-256 of what the run is made from, by name ("model", "data"; nested for several of a kind):
  /// asked for once, kept in checkpoints, and compared when the run goes on. May be empty.
  std::function<Json()> sources = {};
};

/// The training loop. Once, on a fresh start: begin of every policy, calibrate of every method. A
/// step: begin_part, then before_step of every policy; for each micro-batch the chain of `around`
/// down to the objective, then backward; after_backward of methods, then of policies; division by
/// the window's count, clipping, optimizer; after_step of methods, then of policies. Everything is
/// a function of (recipe, data, seed) for a given thread count, so a resumed run ends with the same
/// bytes.
class Trainer {
 public:
  Trainer(TrainConfig config, TrainParts parts, Progress& progress);
  struct Result {
    Json metrics;  // of the kept state; null without evaluation data
    Json eval_on;  // the same of further evaluation sets, by name
    int64_t steps = 0, tokens = 0, examples = 0;
    double seconds = 0;
    double first_loss = 0, last_loss = 0;
    int64_t kept_step = 0;
    bool stopped_early = false;
    int signal = 0;  // SIGINT or SIGTERM ended it; its state is saved
    int64_t cut_rows = 0;
    Json history;
  };
  /// What comes before the first step of a fresh run: begin of the policies and, unless `looking`
  /// only, calibrate of the methods. Writes nothing. Errors: BadInput and Unsupported for policies
  /// and methods that do not fit this model or these data; Diverged.
  void prepare(bool looking = false);
  /// Prepares first when prepare() was not called. Errors: Diverged (step and rows named; the last
  /// checkpoint stays), Io, OutOfMemory.
  Result run(bool resume);

 private:
  struct Part {
    double sum = 0, count = 0;
  };
  struct Window {
    std::vector<Loader::Item> items;
    double examples = 0;
    int64_t tokens = 0;
    double loss = 0, count = 0, norm = 0, lr = 0, seconds = 0;
    std::map<std::string, Part> parts;  // of the loss, by name
    void add_part(const std::string& name, double part_sum, double part_count) {
      parts[name].sum += part_sum;
      parts[name].count += part_count;
    }
  };
  void begin(bool resume);
  void restore();
  Window load_window();
  void train_window(Window& window);
  void before_step(const Pass& pass);
  void refresh_united_masks();
  void accumulate(Window& window);
  void update(Window& window);
  Loss chain(const Batch& batch, size_t policy);
  [[noreturn]] void diverged(const Window& window, const char* what);
  void report(const Window& window);
  void evaluate_now();
  std::optional<double> best_value(const Evaluation& found) const;
  void save_result();
  void keep(const Evaluation& found);
  bool settled() const;  // a result may be kept
  void save_now();
  bool finished() const;
  RunLimits limits() const;
  double total_examples() const;
  double progress_of(double examples, int64_t step, double seconds) const;
  Clock clock() const;
  NamedTensors state_tensors();
  void log(const Json& record);

  TrainConfig config_;
  TrainParts parts_;
  Progress& progress_;
  Loader loader_;
  AdamW optimizer_;
  std::vector<Param> params_;
  std::vector<size_t> united_;  // params whose mask is made from those of several methods
  std::unique_ptr<TrainState> state_;
  RunState run_;
  std::unique_ptr<LogWriter> log_;
  std::unique_ptr<EventWriter> events_;
  int64_t session_tokens_ = 0;  // since this process began: a resumed run's speed is its own
  bool stopped_early_ = false;
};

/// Largest resident size of this process so far, in bytes.
int64_t peak_resident_bytes();

}  // namespace attune
