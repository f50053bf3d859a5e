#pragma once
#include <string>

#include "recipe/target.h"

namespace attune {

/// Reads back what was exported and compares it with the model it came from, on fixed probe rows:
/// the last hidden state, and the logits where both have a head of the same size. Returns the
/// largest |a - b| / (1 + |b|). Errors: ProofFailed, naming the difference, above 1e-4 (fp32).
double verify_export(Target& source, const TargetRequest& written);

}  // namespace attune
