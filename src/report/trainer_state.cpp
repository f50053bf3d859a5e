#include "report/trainer_state.h"

#include <algorithm>
#include <map>

namespace attune {

namespace {

using Sorted = std::map<std::string, Json>;

void copy_number(Sorted& to, const std::string& name, const Json& from, const char* key) {
  if (from.contains(key) && from[key].is_number()) to[name] = from[key];
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// Whole numbers as such: readers there take num_train_epochs for an integer.
Json number(double value) {
  const int64_t whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

}  // namespace

Json trainer_log_entry(const Json& record) {
  if (!record.is_object()) return nullptr;
  Sorted entry;
  copy_number(entry, "epoch", record, "epoch");
  copy_number(entry, "step", record, "step");
  if (record.contains("eval") && record["eval"].is_object()) {
    for (const auto& metric : record["eval"].items()) {
      // Of a further evaluation set: "dev/accuracy" is eval_dev_accuracy there.
      std::string name = "eval_" + metric.key();
      std::replace(name.begin(), name.end(), '/', '_');
      if (metric.value().is_number()) entry[name] = metric.value();
    }
    return entry;
  }
  if (!record.contains("loss")) return nullptr;
  copy_number(entry, "loss", record, "loss");
  copy_number(entry, "grad_norm", record, "grad_norm");
  copy_number(entry, "learning_rate", record, "lr");
  return entry;
}

Json trainer_state_json(const TrainerState& state, const std::vector<Json>& records) {
  Json history = Json::array();
  for (const Json& record : records) {
    const Json entry = trainer_log_entry(record);
    if (!entry.is_null()) history.push_back(entry);
  }
  Sorted result;
  result["best_metric"] = or_null(state.best_metric);
  result["best_model_checkpoint"] = or_null(state.best_model_checkpoint);
  result["epoch"] = state.epoch;
  result["eval_steps"] = state.eval_steps;
  result["global_step"] = state.global_step;
  result["is_hyper_param_search"] = false;
  result["is_local_process_zero"] = true;
  result["is_world_process_zero"] = true;
  result["log_history"] = history;
  result["logging_steps"] = state.logging_steps;
  result["max_steps"] = state.max_steps;
  result["num_train_epochs"] = number(state.num_train_epochs);
  result["save_steps"] = state.save_steps;
  result["total_flos"] = state.total_flos;
  result["train_batch_size"] = state.train_batch_size;
  result["trial_name"] = nullptr;
  result["trial_params"] = nullptr;
  return result;
}

}  // namespace attune
