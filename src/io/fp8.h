#pragma once
#include <array>
#include <string_view>

namespace attune {

/// The 256 values of an 8-bit floating point dtype as safetensors names it: F8_E5M2, F8_E4M3 (no
/// infinities), F8_E8M0 (powers of two, no sign), F8_E4M3FNUZ and F8_E5M2FNUZ (no infinities, no
/// negative zero). LibTorch 1.13 has none of them. Errors: Internal for any other name. Reference:
/// Micikevicius et al. 2022, "FP8 formats for deep learning", arXiv 2209.05433; OCP MX
/// specification 1.0.
std::array<float, 256> fp8_values(std::string_view dtype);

}  // namespace attune
