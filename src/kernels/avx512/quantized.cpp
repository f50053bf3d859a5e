#include <immintrin.h>

#include "kernels/detail/decode.h"

namespace attune::kernels::detail {

namespace {

/// 16 values of the 16 codes in the low (shift 0) or high (4) halves of 16 bytes.
template <int kShift>
__m512 sixteen(__m512 levels, const uint8_t* bytes, __m512 scale) {
  __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  if (kShift > 0) index = _mm512_srli_epi32(index, 4);
  return _mm512_mul_ps(_mm512_permutexvar_ps(index, levels), scale);  // reads the low 4 bits alone
}

void put(__m512 values, float* to) {
  _mm512_storeu_ps(to, values);
}

/// Rounds finite values to nearest even.
void put(__m512 values, bf16* to) {
  const __m512i bits = _mm512_castps_si512(values);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

template <class T>
void decode(const float* levels, const uint8_t* codes, const float* scales, int64_t runs, T* out) {
  const __m512 table = _mm512_loadu_ps(levels);
  for (int64_t r = 0; r < runs; ++r) {
    const __m512 scale = _mm512_set1_ps(scales[r]);
    const uint8_t* from = codes + r * 32;
    T* to = out + r * 64;
    put(sixteen<0>(table, from, scale), to);
    put(sixteen<0>(table, from + 16, scale), to + 16);
    put(sixteen<4>(table, from, scale), to + 32);
    put(sixteen<4>(table, from + 16, scale), to + 48);
  }
}

template <class T>
void decode_bytes(const int8_t* codes, float scale, int64_t count, T* out) {
  const __m512 by = _mm512_set1_ps(scale);
  const auto values = [&](__m128i bytes) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), by);
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    put(values(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i))), out + i);
  if (i == count) return;
  T last[16];
  const __mmask16 rest = static_cast<__mmask16>((1u << (count - i)) - 1);
  put(values(_mm_maskz_loadu_epi8(rest, codes + i)), last);
  for (int64_t j = i; j < count; ++j) out[j] = last[j - i];
}

}  // namespace

void decode_bytes_avx512(const int8_t* codes, float scale, int64_t count, float* out) {
  decode_bytes(codes, scale, count, out);
}
void decode_bytes_avx512(const int8_t* codes, float scale, int64_t count, bf16* out) {
  decode_bytes(codes, scale, count, out);
}
void decode_runs_avx512(const float* levels, const uint8_t* codes, const float* scales,
                        int64_t runs, float* out) {
  decode(levels, codes, scales, runs, out);
}
void decode_runs_avx512(const float* levels, const uint8_t* codes, const float* scales,
                        int64_t runs, bf16* out) {
  decode(levels, codes, scales, runs, out);
}

}  // namespace attune::kernels::detail
