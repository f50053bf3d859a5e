#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/adaptation.h"
#include "core/objective.h"

namespace attune {

struct TrainState {
  Model& model;
  Adaptation& adaptation;
  std::vector<Param>& params;
  Pass pass;
};
using LossFn = std::function<Loss(const Batch&)>;

/// Freezing, half tuning, adaptive backpropagation, decay, adversarial steps, curriculum.
class TrainingPolicy {
 public:
  virtual ~TrainingPolicy() = default;
  virtual void begin(TrainState&) {}
  virtual void before_step(TrainState&) {}  // choose what trains, and its rate
  virtual Loss around(TrainState&, const Batch& batch, const LossFn& next) { return next(batch); }
  virtual void after_backward(TrainState&) {}  // gradients exist: mask, project, measure
  virtual void after_step(TrainState&) {}      // values changed: restore, re-mask
  virtual std::string save_state() const { return {}; }  // makes resume exact
  virtual void load_state(std::string_view) {}
};

}  // namespace attune
