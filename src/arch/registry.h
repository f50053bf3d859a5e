#pragma once
#include "core/registry.h"
#include "nn/spec.h"

namespace attune {

/// Every architecture of arch.def, by model_type.
Registry<Architecture> architectures();

}  // namespace attune
