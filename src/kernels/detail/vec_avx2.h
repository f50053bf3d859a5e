#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/kernels.h"

namespace attune::kernels::avx2 {
namespace {

/// 8 floats.
struct Vec {
  using Scalar = float;
  using Mask = __m256;
  static constexpr int kWidth = 8, kTileCols = 2, kTileRows = 0, kPairRows = 5, kSingleRows = 8;
  __m256 v;

  static Vec set(double x) { return {_mm256_set1_ps(static_cast<float>(x))}; }
  static Vec splat(float x) { return {_mm256_set1_ps(x)}; }
  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec index() { return {_mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0)}; }
  static __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
  }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
  static Vec load(const bf16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  static Vec load(const bf16* p, int n) {
    bf16 part[8] = {};
    for (int i = 0; i < n; ++i) part[i] = p[i];
    return load(part);
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(float* p, int n) const { _mm256_maskstore_ps(p, first(n), v); }
  __m128i narrow() const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  }
  void store(bf16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow()); }
  void store(bf16* p, int n) const {
    bf16 part[8];
    store(part);
    for (int i = 0; i < n; ++i) p[i] = part[i];
  }

  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Mask less(Vec a, Vec b) { return _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ); }
  static Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.v, a.v, m)}; }
  static Vec reciprocal(Vec a) { return set(1) / a; }
  static constexpr bool kScaleSaturates = false;
  static Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
  static Vec round(Vec a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  /// a * 2^n in two halves, so that n = 128 and the subnormal end stay exact.
  static Vec scale(Vec a, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n.v);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const __m256i rest = _mm256_sub_epi32(whole, half);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256 s = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 t = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return {_mm256_mul_ps(_mm256_mul_ps(a.v, s), t)};
  }
  static float sum(Vec a) {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
  }
  /// Lane i is the sum of x[i].
  static Vec sums(const Vec (&x)[8]) {
    __m256 a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = _mm256_hadd_ps(x[2 * i].v, x[2 * i + 1].v);
    for (int i = 0; i < 2; ++i) b[i] = _mm256_hadd_ps(a[2 * i], a[2 * i + 1]);
    return {_mm256_add_ps(_mm256_permute2f128_ps(b[0], b[1], 0x20),
                          _mm256_permute2f128_ps(b[0], b[1], 0x31))};
  }
  static float maximum(Vec a) {
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
  }
  static Vec keep(const uint16_t* draws, uint32_t threshold, Vec x) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(draws));
    const __m256i kept = _mm256_cmpgt_epi32(_mm256_cvtepu16_epi32(bits),
                                            _mm256_set1_epi32(static_cast<int>(threshold) - 1));
    return {_mm256_and_ps(x.v, _mm256_castsi256_ps(kept))};
  }
  static Vec keep_bytes(const uint8_t* flags, int n, Vec yes, Vec no) {
    uint8_t part[8] = {};
    for (int i = 0; i < n; ++i) part[i] = flags[i];
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i*>(part)));
    const __m256i zero = _mm256_cmpeq_epi32(wide, _mm256_setzero_si256());
    return select(_mm256_castsi256_ps(zero), no, yes);
  }

  static Vec exp(Vec x);
  static Vec exp2(Vec x);
  static Vec tanh(Vec x);
  static Vec log(Vec x);
  /// x = mantissa * 2^exponent, mantissa in [1, 2); x positive and normal.
  static Vec mantissa(Vec x) {
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x.v), _mm256_set1_epi32(0x7fffff));
    return {_mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x3f800000)))};
  }
  static Vec exponent(Vec x) {
    const __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(x.v), 23);
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_set1_epi32(127)))};
  }
  static Vec normal(Vec x, Vec* density);
  static constexpr bool kTables = false;
  static void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride);
};

#include "kernels/detail/vec_math.inl"

/// 8 x 8 block.
inline void Vec::transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

/// Four Philox words, each in the low half of 64 bits; high halves are rubbish that no operation
/// reads.
struct Wide {
  static constexpr int kLanes = 4;
  __m256i v;
  static Wide set(uint64_t x) { return {_mm256_set1_epi64x(static_cast<long long>(x))}; }
  static Wide load(const uint64_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  static Wide add(Wide a, uint32_t b) { return {_mm256_add_epi64(a.v, _mm256_set1_epi64x(b))}; }
  static Wide times(Wide a, uint32_t b) { return {_mm256_mul_epu32(a.v, _mm256_set1_epi64x(b))}; }
  static Wide high(Wide a) { return {_mm256_srli_epi64(a.v, 32)}; }
  static Wide exclusive(Wide a, Wide b, Wide c) {
    return {_mm256_xor_si256(_mm256_xor_si256(a.v, b.v), c.v)};
  }
  /// The words of each block one after another.
  static void store(Wide w0, Wide w1, Wide w2, Wide w3, uint16_t* draws) {
    const __m256i front = _mm256_blend_epi32(w0.v, _mm256_slli_epi64(w1.v, 32), 0xaa);
    const __m256i back = _mm256_blend_epi32(w2.v, _mm256_slli_epi64(w3.v, 32), 0xaa);
    const __m256i even = _mm256_unpacklo_epi64(front, back),
                  odd = _mm256_unpackhi_epi64(front, back);
    __m256i* to = reinterpret_cast<__m256i*>(draws);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
};

template <class T>
using vec_for = Vec;

}  // namespace
}  // namespace attune::kernels::avx2
