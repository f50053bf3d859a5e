#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arch/load.h"
#include "core/adaptation.h"
#include "core/objective.h"
#include "core/policy.h"
#include "methods/registry.h"
#include "recipe/recipe.h"
#include "recipe/warm_start.h"
#include "tasks/registry.h"
#include "text/tokenizer.h"
#include "train/adapter_files.h"
#include "train/trainer.h"

namespace attune {

/// fp32, bf16, fp64, or auto: bf16 where the machine multiplies it natively. Errors: BadInput;
/// Unsupported for bf16 on a machine without it.
Numerics numerics_of(const std::string& precision);

/// Everything a recipe names, made in the order in which users' mistakes show soonest: data, task,
/// model, methods.
class Session {
 public:
  /// Errors: whatever is wrong with the recipe, its files or its data; nothing is written.
  explicit Session(Recipe recipe);

  const Recipe& recipe() const { return recipe_; }
  Model& model() { return *loaded_.model; }
  const LoadedModel& loaded() const { return loaded_; }
  /// Null for tasks without text.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  const Task& task() const { return *task_; }
  Adaptation& adaptation() { return *adaptation_; }
  const DataView& train_view() const { return train_; }
  const DataView& eval_view() const { return eval_; }
  const std::vector<NamedView>& eval_on() const { return eval_on_; }
  std::string train_format() const { return train_.data.format_name(); }
  /// What the user should know before the run, a line each.
  std::vector<std::string> summary() const;
  /// What `storage:` made codes of.
  const StorageReport& stored() const { return stored_; }
  TrainConfig train_config() const;
  /// Reads the rows that could stop a run half way: those evaluated on, and with data.too_long:
  /// error all others too; and that the task has the metric that decides (train.best).
  void check_rows();
  AdapterCard card();
  /// Makes the parts of a trainer; they refer to this session.
  TrainParts parts(const std::string& run);
  /// SHA-256 of what the run is made from: model, tokenizer, data (of data.train), and where there
  /// are such files eval and eval_on.NAME. The first call reads all of it.
  Json sources();
  /// Messages about the rows that data.on_bad_row: skip left out, of all files.
  std::vector<std::string> bad_rows() const;
  /// What each method of the recipe edits or trains, in order; "full" when it has none.
  std::vector<std::pair<std::string, Names>> method_sites() const;
  /// The run this one starts from; null when there is none.
  const WarmStart* start() const { return start_.get(); }

 private:
  void open_data();
  void make_task();
  void view_windows();
  void take_labels(TaskContext& context);
  void meet_head(const Json& config, TaskContext& context);
  void make_model();
  void attach();
  void make_room();
  void make_objective();
  std::vector<NamedOptions> settle_rates();
  void check_best();
  const std::string& fingerprint();
  /// The seed of initial values, which a run shares with the one it starts from.
  uint64_t value_seed() const { return start_ ? start_->seed() : recipe_.seed; }
  void write_peft_beside(const std::string& folder);
  Tensor class_weights() const;

  Recipe recipe_;
  std::string model_directory_;
  std::unique_ptr<Tokenizer> tokenizer_;
  DataView train_, eval_;
  std::vector<NamedView> eval_on_;
  std::unique_ptr<WarmStart> start_;
  bool start_head_ = false;
  int64_t max_length_ = 0;
  bool new_head_ = false;  // whatever head the checkpoint has is for other labels
  Registry<Task> task_registry_;
  Registry<Tuner> method_registry_;
  std::unique_ptr<Task> task_;
  LoadedModel loaded_;
  StorageReport stored_;
  double rate_ = 0;         // the optimizer's
  std::string rates_line_;  // the methods'
  std::unique_ptr<Adaptation> adaptation_;
  std::unique_ptr<Objective> objective_;
  std::vector<std::unique_ptr<TrainingPolicy>> policies_;
};

/// Whether a run may be written to the recipe's output. Errors: BadInput when it exists, unless
/// `overwrite` is given and it holds a run; when model, data or init_from lie in it.
void check_output(const Recipe& recipe, bool overwrite);
/// Runs a recipe from the start into its output directory, or goes on with a run. Returns the exit
/// status (0, 130, 143); prints through `progress` and the log; the summary of the run comes back
/// in `result`.
int train_run(Recipe recipe, bool overwrite, Progress& progress, Json& result);
/// `threads`: instead of the recipe's; 0: as it says. Another number than before changes the last
/// bits of sums.
int resume_run(const std::string& run, int threads, Progress& progress, Json& result);

}  // namespace attune
