// What is known of a run before it begins.
#include <cmath>

#include "train/trainer.h"

namespace attune {

/// Steps are known where they are given, or where batches have a number of examples.
RunLimits Trainer::limits() const {
  RunLimits limits;
  limits.steps = config_.steps;
  if (config_.steps == 0 && config_.minutes == 0 && config_.batches.batch_size > 0) {
    const auto batches = [&](double examples) {
      return static_cast<int64_t>(
          std::ceil((examples - 0.5) / static_cast<double>(config_.batches.batch_size)));
    };
    const double whole = std::floor(config_.epochs), one = static_cast<double>(loader_.examples());
    const int64_t all =
        static_cast<int64_t>(whole) * batches(one) + batches((config_.epochs - whole) * one);
    limits.steps = (all + config_.accumulate - 1) / config_.accumulate;
  }
  const Json task = parts_.task.state();
  if (task.is_object()) limits.rows = task.value("max_length", int64_t{0});
  return limits;
}

}  // namespace attune
