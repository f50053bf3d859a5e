#pragma once
#include "nn/spec.h"

namespace attune {

/// Rotary positions as config.json gives them: `rope_parameters`, or the older `rope_theta` and
/// `rope_scaling`. `dims`: the elements of a head that turn; `theta`: the family's own base.
/// Errors: Unsupported for an unknown rope_type and for odd sizes, Corrupt for missing or misshapen
/// fields.
RotarySpec rotary_of(const ConfigReader& config, int64_t dims, double theta);

}  // namespace attune
