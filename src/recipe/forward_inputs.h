#pragma once
#include <string>
#include <vector>

#include "data/records.h"
#include "io/safetensors.h"
#include "recipe/target.h"

namespace attune {

/// Runs every line of `data` and returns `N/site` tensors in float32 (float64 for a model in fp64).
/// What a line holds says model_inputs.h. With `gradients`, lines that have labels add `N/loss` and
/// `N/grad/NAME` for every tensor of the checkpoint, as transformers' head classes define the loss.
/// Errors: BadInput naming the line.
NamedTensors forward_all(Target& target, const Dataset& data,
                         const std::vector<std::string>& wanted, bool gradients);

}  // namespace attune
