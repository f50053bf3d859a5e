#pragma once
#include <cstdint>

#include "kernels/kernels.h"

/// Decoding of whole runs of 64 NF4 codes (layout: quantized.h) and of int8 codes, one version an
/// instruction set. Called inside parallel regions: nothing here may open one.
namespace attune::kernels::detail {

template <class T>
void decode_runs_ref(const float* levels, const uint8_t* codes, const float* scales, int64_t runs,
                     T* out);
void decode_runs_avx512(const float* levels, const uint8_t* codes, const float* scales,
                        int64_t runs, float* out);
void decode_runs_avx512(const float* levels, const uint8_t* codes, const float* scales,
                        int64_t runs, bf16* out);

/// out[i] = scale codes[i].
template <class T>
void decode_bytes_ref(const int8_t* codes, float scale, int64_t count, T* out);
void decode_bytes_avx512(const int8_t* codes, float scale, int64_t count, float* out);
void decode_bytes_avx512(const int8_t* codes, float scale, int64_t count, bf16* out);

}  // namespace attune::kernels::detail
