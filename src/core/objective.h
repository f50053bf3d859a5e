#pragma once
#include <map>
#include <memory>
#include <string>

#include "core/model.h"

namespace attune {

struct Loss {
  Score total;
  std::map<std::string, Score> parts;
};

/// What is minimised: a sum over a batch and the count that divides it.
class Objective {
 public:
  virtual ~Objective() = default;
  virtual Want wants() const { return {}; }
  /// The field of a batch that it compares with the model's output: "labels" or "targets".
  virtual std::string reads() const { return "labels"; }
  /// Reads batch.fields ("labels", ...); randomness comes from batch.pass and the example ids.
  virtual Loss compute(Model& model, const Batch& batch) = 0;
};

}  // namespace attune
