#pragma once
#include <vector>

#include "core/adaptation.h"
#include "core/objective.h"
#include "tasks/task.h"
#include "train/loader.h"

namespace attune {

/// What gradients before training are computed from; everything outlives the calibration.
struct CalibrationParts {
  Model& model;
  Objective& objective;
  const Task& task;
  const DataView& train;
  Tensor class_weights;  // or undefined
  SamplerOptions batches;
  uint64_t seed = 0;
  std::vector<Param>& params;
};

/// Gradients of the training loss before the first step: batches of the training data in an order
/// of their own (the training sampler does not move), at most one pass over the data, without
/// dropout, penalties and policies. Tensors that a policy has frozen get gradients too. The
/// gradients are gone when `gradients` returns; values never change.
/// Errors of `gradients`: Diverged when a loss is not finite.
Calibration calibration_of(const CalibrationParts& parts);

}  // namespace attune
