#pragma once
// ATTUNE_SET names the instruction set's namespace; ATTUNE_NATIVE_BF16 rounds with the CPU's own
// instruction.
#include <immintrin.h>

#include <cstdint>

#include "kernels/kernels.h"

namespace attune::kernels::ATTUNE_SET {
namespace {

/// 16 floats.
struct Vec {
  using Scalar = float;
  using Mask = __mmask16;
  static constexpr int kWidth = 16, kTileCols = 4, kTileRows = 6, kPairRows = 8, kSingleRows = 16;
  __m512 v;

  static Vec set(double x) { return {_mm512_set1_ps(static_cast<float>(x))}; }
  static Vec splat(float x) { return {_mm512_set1_ps(x)}; }
  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec index() {
    return {_mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)};
  }
  static Mask first(int n) { return static_cast<Mask>((1u << n) - 1); }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
  static Vec widen(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  static Vec load(const bf16* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vec load(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), v); }
#ifdef ATTUNE_NATIVE_BF16
  /// Differs from the portable rounding in flushing subnormals to zero.
  __m256i narrow() const {
    return (__m256i)_mm512_cvtneps_pbh(v);
  }
#else
  __m256i narrow() const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const Mask nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
#endif
  void store(bf16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow());
  }
  void store(bf16* p, int n) const {
    _mm256_mask_storeu_epi16(p, first(n), narrow());
  }

  friend Vec operator+(Vec a, Vec b) {
    return {_mm512_add_ps(a.v, b.v)};
  }
  friend Vec operator-(Vec a, Vec b) {
    return {_mm512_sub_ps(a.v, b.v)};
  }
  friend Vec operator*(Vec a, Vec b) {
    return {_mm512_mul_ps(a.v, b.v)};
  }
  friend Vec operator/(Vec a, Vec b) {
    return {_mm512_div_ps(a.v, b.v)};
  }
  static Vec fma(Vec a, Vec b, Vec c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  static Vec max(Vec a, Vec b) {
    return {_mm512_max_ps(a.v, b.v)};
  }
  static Vec min(Vec a, Vec b) {
    return {_mm512_min_ps(a.v, b.v)};
  }
  static Mask less(Vec a, Vec b) {
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);
  }
  static Mask both(Mask a, Mask b) {
    return a & b;
  }
  static Vec select(Mask m, Vec a, Vec b) {
    return {_mm512_mask_blend_ps(m, b.v, a.v)};
  }
  /// 1 / a for finite a, within 1 ulp: an estimate and one Newton step, at half the cost of a
  /// division.
  static Vec reciprocal(Vec a) {
    const __m512 r = _mm512_rcp14_ps(a.v);
    return {_mm512_fmadd_ps(r, _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(1.0f)), r)};
  }
  static constexpr bool kScaleSaturates = true;
  static Vec sqrt(Vec a) {
    return {_mm512_sqrt_ps(a.v)};
  }
  static Vec round(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec scale(Vec a, Vec n) {
    return {_mm512_scalef_ps(a.v, n.v)};
  }
  static float sum(Vec a) {
    return _mm512_reduce_add_ps(a.v);
  }
  /// Lane i is the sum of x[i].
  static Vec sums(const Vec (&x)[16]) {
    __m512 a[8], b[4], c[2];
    for (int i = 0; i < 8; ++i)
      a[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i].v, x[2 * i + 1].v),
                           _mm512_unpackhi_ps(x[2 * i].v, x[2 * i + 1].v));
    for (int i = 0; i < 4; ++i)
      b[i] = _mm512_add_ps(_mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0x44),
                           _mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0xee));
    for (int i = 0; i < 2; ++i)
      c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                           _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return {_mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88),
                          _mm512_shuffle_f32x4(c[0], c[1], 0xdd))};
  }
  static float maximum(Vec a) {
    return _mm512_reduce_max_ps(a.v);
  }
  static Vec keep(const uint16_t* draws, uint32_t threshold, Vec x) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(draws)));
    const Mask m = _mm512_cmpge_epu32_mask(wide, _mm512_set1_epi32(static_cast<int>(threshold)));
    return {_mm512_maskz_mov_ps(m, x.v)};
  }
  static Vec keep_bytes(const uint8_t* flags, int n, Vec yes, Vec no) {
    const __m128i bytes = _mm_maskz_loadu_epi8(first(n), flags);
    return select(_mm_test_epi8_mask(bytes, bytes), yes, no);
  }

  static Vec exp(Vec x);
  static Vec exp2(Vec x);
  static Vec tanh(Vec x);
  static Vec log(Vec x);
  /// x = mantissa * 2^exponent, mantissa in [1, 2).
  static Vec mantissa(Vec x) {
    return {_mm512_getmant_ps(x.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src)};
  }
  static Vec exponent(Vec x) {
    return {_mm512_getexp_ps(x.v)};
  }
  static Vec normal(Vec x, Vec* density);
  static constexpr bool kTables = true;
  /// Phi(x) and the slope of x Phi(x) from tables: a third of the work of normal().
  static Vec normal_by_table(Vec x);
  static Vec gelu_slope_by_table(Vec x);
  template <int Rows>
  static Vec odd_by_table(const float (&table)[Rows][16], Vec x);
  static void transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride);
};

#include "kernels/detail/gelu_tables.inl"
#include "kernels/detail/vec_math.inl"

/// 1/2 + sign(x) p(|x|), p the table's polynomial of the segment of |x|; constant beyond |x| = 6.
/// NaN stays NaN.
template <int Rows>
inline Vec Vec::odd_by_table(const float (&table)[Rows][16], Vec x) {
  const __m512 bound = _mm512_set1_ps(5.9999995f), scale = _mm512_set1_ps(1 / 0.375f);
  const __m512 a = _mm512_min_ps(bound, _mm512_abs_ps(x.v));
  const __m512 z = _mm512_fmsub_ps(a, scale, _mm512_set1_ps(0.5f));
  const __m512i segment = _mm512_cvtps_epi32(z);
  const __m512 t = _mm512_sub_ps(z, Vec::round({z}).v);
  __m512 p = _mm512_permutexvar_ps(segment, _mm512_load_ps(table[Rows - 1]));
#pragma GCC unroll 8
  for (int d = Rows - 2; d >= 0; --d)
    p = _mm512_fmadd_ps(p, t, _mm512_permutexvar_ps(segment, _mm512_load_ps(table[d])));
  const __m512 sign = _mm512_and_ps(x.v, _mm512_set1_ps(-0.0f));
  return {_mm512_add_ps(_mm512_set1_ps(0.5f), _mm512_xor_ps(p, sign))};
}
inline Vec Vec::normal_by_table(Vec x) {
  return odd_by_table(kNormalTable, x);
}
inline Vec Vec::gelu_slope_by_table(Vec x) {
  return odd_by_table(kGeluSlopeTable, x);
}

/// 16 x 16 block: pairs of rows, then of pairs, then 128-bit quarters.
inline void Vec::transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  __m512 r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_storeu_ps(to + i * to_stride, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_ps(to + (i + 4) * to_stride, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
    _mm512_storeu_ps(to + (i + 8) * to_stride, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
    _mm512_storeu_ps(to + (i + 12) * to_stride, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
  }
}

/// Eight Philox words, each in the low half of 64 bits; high halves are rubbish that no operation
/// reads.
struct Wide {
  static constexpr int kLanes = 8;
  __m512i v;
  static Wide set(uint64_t x) { return {_mm512_set1_epi64(static_cast<long long>(x))}; }
  static Wide load(const uint64_t* p) { return {_mm512_loadu_si512(p)}; }
  static Wide add(Wide a, uint32_t b) { return {_mm512_add_epi64(a.v, _mm512_set1_epi64(b))}; }
  static Wide times(Wide a, uint32_t b) { return {_mm512_mul_epu32(a.v, _mm512_set1_epi64(b))}; }
  static Wide high(Wide a) { return {_mm512_srli_epi64(a.v, 32)}; }
  static Wide exclusive(Wide a, Wide b, Wide c) {
    return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0x96)};
  }
  /// The words of each block one after another.
  static void store(Wide w0, Wide w1, Wide w2, Wide w3, uint16_t* draws) {
    const __m512i front = _mm512_mask_shuffle_epi32(w0.v, 0xaaaa, w1.v, _MM_PERM_CCAA);
    const __m512i back = _mm512_mask_shuffle_epi32(w2.v, 0xaaaa, w3.v, _MM_PERM_CCAA);
    const __m512i low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    _mm512_storeu_si512(draws, _mm512_permutex2var_epi64(front, low, back));
    _mm512_storeu_si512(draws + 32, _mm512_permutex2var_epi64(front, high, back));
  }
};

template <class T>
using vec_for = Vec;

}  // namespace
}  // namespace attune::kernels::ATTUNE_SET
