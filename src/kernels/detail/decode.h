#pragma once
#include <cstdint>

#include "kernels/kernels.h"

/// Decoding of whole runs of 64 NF4 codes (layout: quantized.h), one version an instruction set.
namespace attune::kernels::detail {

template <class T>
void decode_runs_ref(const float* levels, const uint8_t* codes, const float* scales, int64_t runs,
                     T* out);
void decode_runs_avx512(const float* levels, const uint8_t* codes, const float* scales,
                        int64_t runs, float* out);
void decode_runs_avx512(const float* levels, const uint8_t* codes, const float* scales,
                        int64_t runs, bf16* out);

}  // namespace attune::kernels::detail
