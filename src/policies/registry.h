#pragma once
#include "core/policy.h"
#include "core/registry.h"

namespace attune {

/// Every training policy of policies.def.
Registry<TrainingPolicy> policies();

}  // namespace attune
