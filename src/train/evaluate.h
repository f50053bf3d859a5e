#pragma once
#include "core/model.h"
#include "tasks/task.h"
#include "train/loader.h"

namespace attune {

/// Metrics of the task over a view (and its mean "loss" where an objective is given), without
/// gradients or dropout.
Json evaluate(Model& model, const Task& task, const DataView& view, int64_t batch_tokens);

/// A further evaluation set.
struct NamedView {
  std::string name;
  DataView view;
};

/// The metrics of every evaluation set at one moment.
struct Evaluation {
  Json metrics;                   // of the main set; null without one
  Json eval_on = Json::object();  // of the others, by name
  Json numbers = Json::object();  // every number of all: "accuracy", "NAME/accuracy"
  /// "accuracy 0.7312, macro_f1 0.6120, NAME/accuracy 0.7001": as much as fits a line.
  std::string text() const;
};
Evaluation evaluate_all(Model& model, const Task& task, const DataView& main,
                        const std::vector<NamedView>& others, int64_t batch_tokens);
/// "NAME/accuracy" -> "accuracy".
std::string metric_name(const std::string& name);

/// One JSON object a record, in order.
std::vector<Json> predict(Model& model, const Task& task, int64_t count,
                          const std::function<Record(int64_t)>& record, int64_t batch_tokens);

}  // namespace attune
