#pragma once
#include "core/objective.h"
#include "core/registry.h"

namespace attune {

/// Every objective of objectives.def.
Registry<Objective> objectives();

}  // namespace attune
