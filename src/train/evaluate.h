#pragma once
#include "core/model.h"
#include "tasks/task.h"
#include "train/loader.h"

namespace attune {

/// Metrics of the task over a view (and its mean "loss" where an objective is given), without
/// gradients or dropout.
Json evaluate(Model& model, const Task& task, const DataView& view, int64_t batch_tokens);

/// One JSON object a record, in order.
std::vector<Json> predict(Model& model, const Task& task, int64_t count,
                          const std::function<Record(int64_t)>& record, int64_t batch_tokens);

}  // namespace attune
