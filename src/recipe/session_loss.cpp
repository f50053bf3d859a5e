// What a run's loss is made of: the objective, and what weighs labels in it.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "objectives/registry.h"
#include "recipe/session.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// Tasks that take a loss by default; with `labelled` only those with labels of their own.
std::vector<std::string> tasks_with_loss(const std::string& objective, bool labelled) {
  std::vector<std::string> names;
  const Registry<Task> registry = tasks();
  for (const Entry<Task>& entry : registry.all()) {
    const std::unique_ptr<Task> task = entry.make(Options());
    if (task->objective() == objective && !(labelled && task->head().kind == HeadKind::Lm))
      names.push_back(entry.name == "pair" ? "pair with labels" : entry.name);
  }
  return names;
}

}  // namespace

/// The loss, which must read what the task's batches hold.
void Session::make_objective() {
  const Registry<Objective> registry = objectives();
  const auto made = [&](const NamedOptions& named) {
    const Entry<Objective>& entry = registry.at(named.name);
    return entry.make(
        Options(entry.options, Node::from_json(named.options, {"recipe", 0, 0}), "objective"));
  };
  NamedOptions objective = recipe_.objective;
  if (objective.name.empty() || objective.name == "auto") objective.name = task_->objective();
  const bool smooths = objective.name == "cross_entropy";
  if (smooths && recipe_.label_smoothing > 0)
    objective.options["smoothing"] = recipe_.label_smoothing;
  objective_ = made(objective);
  const std::string held = made({task_->objective(), Json::object(), ""})->reads();
  if (objective_->reads() != held)
    fail(ErrorCode::BadInput,
         "objective: {} reads {}, and the examples of task {} have {}; take {} (auto does), or "
         "another task",
         objective.name, objective_->reads(), recipe_.task, held, task_->objective());
  if (!smooths && recipe_.label_smoothing > 0)
    fail(ErrorCode::BadInput,
         "label_smoothing: only cross_entropy spreads its target, and task {} trains with {} here; "
         "leave it out (tasks that take it: {})",
         recipe_.task, objective.name, join(tasks_with_loss("cross_entropy", false), ", "));
  if (!recipe_.class_weights.is_null() && (!smooths || task_->labels().empty()))
    fail(ErrorCode::BadInput,
         "class_weights: task {} {}; leave them out (tasks that take them: {})", recipe_.task,
         smooths
             ? "has no labels to weigh"
             : format("trains with {} here, and only cross_entropy weighs labels", objective.name),
         join(tasks_with_loss("cross_entropy", true), ", "));
}

Tensor Session::class_weights() const {
  if (recipe_.class_weights.is_null()) return Tensor();
  const std::vector<std::string>& names = task_->labels();
  const std::vector<int64_t> counts = task_->label_counts();
  std::vector<float> weights(names.size(), 1.0F);
  if (recipe_.class_weights.is_string()) {
    // As scikit-learn's "balanced": rows / (labels * rows of the label).
    const double rows =
        static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
    for (size_t i = 0; i < names.size(); ++i)
      weights[i] =
          static_cast<float>(rows / (static_cast<double>(names.size()) *
                                     static_cast<double>(std::max<int64_t>(1, counts[i]))));
  } else {
    for (const auto& [label, weight] : recipe_.class_weights.items()) {
      const std::vector<std::string>::const_iterator found =
          std::find(names.begin(), names.end(), label);
      if (found == names.end())
        fail(ErrorCode::BadInput, "class_weights: the label \"{}\" does not occur;{}", label,
             suggestion(label, names));
      weights[static_cast<size_t>(found - names.begin())] = weight.get<float>();
    }
  }
  return float_tensor(weights).to(loaded_.model->numerics().master());
}

}  // namespace attune
