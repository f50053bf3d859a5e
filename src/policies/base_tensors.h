#pragma once
#include <string>
#include <vector>

#include "core/policy.h"

namespace attune {

/// A trained tensor of the base model among the parameters of a run.
struct TrainedBase {
  size_t param = 0;  // index into TrainState::params
  Site site;
  bool weight = true;     // false: the site's bias
  bool new_head = false;  // of a head that the checkpoint lacks
  Tensor base;            // the pre-trained value; of a new head the one drawn
};

/// The base tensors that the run's methods train, in the parameters' order.
std::vector<TrainedBase> trained_base(const TrainState& state);

/// What training begins from, asked for in TrainingPolicy::begin (of a resumed run, too): the base,
/// or a copy where the run starts from another's values (`init_from`).
Tensor start_of(const TrainState& state, const TrainedBase& tensor);

/// True when the site's name matches one of the globs.
bool matches_any(const Site& site, const std::vector<std::string>& globs);

/// Errors: BadInput, naming the policy, when a glob matches no site of the model.
void check_globs(const TrainState& state, const std::vector<std::string>& globs);

}  // namespace attune
