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
  Calibration calibration = {};  // usable in begin(), on a fresh start only
  bool fresh = true;             // false: the run goes on from a checkpoint
  /// Set in before_step: the optimizer forgets its moments before this step.
  bool restart = false;
  /// The part of the run that the learning-rate schedule spans, and the step it began with; a
  /// policy that divides a run into stages keeps it up in before_step.
  double part_begin = 0, part_end = 1;
  int64_t part_step = 0;
};
using LossFn = std::function<Loss(const Batch&)>;

/// Freezing, half tuning, adaptive backpropagation, decay, adversarial steps, curriculum.
class TrainingPolicy {
 public:
  virtual ~TrainingPolicy() = default;
  virtual void begin(TrainState&) {}
  /// Before the before_step of any policy: values change where a part of the run ends (rewinding).
  virtual void begin_part(TrainState&) {}
  /// Chooses what trains, and its rate. Param::frozen is false before the first policy.
  virtual void before_step(TrainState&) {}
  virtual Loss around(TrainState&, const Batch& batch, const LossFn& next) { return next(batch); }
  virtual void after_backward(TrainState&) {}            // gradients exist: mask, project, measure
  virtual void after_step(TrainState&) {}                // values changed: restore, re-mask
  virtual bool settled() const { return true; }          // as Tuner::settled
  virtual std::string save_state() const { return {}; }  // makes resume exact
  /// Errors: BadInput when the state is that of other options; says what to do.
  virtual void load_state(std::string_view) {}
  /// State too large for text: live tensors, saved beside save_state() and filled after
  /// load_state(), which makes those that exist at that point of the run.
  virtual std::vector<std::pair<std::string, Tensor>> tensors() { return {}; }
};

}  // namespace attune
