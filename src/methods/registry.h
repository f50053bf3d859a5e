#pragma once
#include "core/registry.h"
#include "core/tuner.h"

namespace attune {

/// Every tuning method of methods.def.
Registry<Tuner> methods();

}  // namespace attune
