#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace attune {

/// What Hugging Face's `trainer_state.json` says about a run besides its log.
struct TrainerState {
  std::optional<double> best_metric;
  std::optional<std::string> best_model_checkpoint;
  double epoch = 0;
  int64_t global_step = 0;
  int64_t max_steps = 0;
  double num_train_epochs = 0;
  int64_t logging_steps = 0, eval_steps = 0, save_steps = 0;
  int64_t train_batch_size = 0;
  double total_flos = 0;
};

/// The content of `trainer_state.json`, so that existing plotters read our runs. `records` are
/// those of log.jsonl: a record with "loss" becomes {epoch, step, loss, grad_norm, learning_rate};
/// one whose "eval" is an object becomes {epoch, step, eval_<name>: value, ...} with the object's
/// numbers ("NAME/accuracy" of a further evaluation set becomes eval_NAME_accuracy); others are
/// left out. Keys are sorted, as there.
Json trainer_state_json(const TrainerState& state, const std::vector<Json>& records);

/// A record of log.jsonl as an entry of log_history; null when it is neither of the two.
Json trainer_log_entry(const Json& record);

}  // namespace attune
