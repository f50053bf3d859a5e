#pragma once
#include "kernels/detail/vec_avx512.h"

namespace attune::kernels::ATTUNE_SET {
namespace {

/// Pairs of bf16 along the inner dimension, multiplied by vdpbf16ps.
struct Bf16Pack {
  using Vector = Vec;
  using Elem = uint32_t;
  using Operand = __m512bh;
  static constexpr int kPack = 2;
  static constexpr int64_t kRowBlock = 1, kInnerBlock = 1;
  struct Session {};

  static Operand broadcast(const Elem* a) {
    return (__m512bh)_mm512_set1_epi32(static_cast<int>(*a));
  }
  static Operand operand(const Elem* b) { return (__m512bh)_mm512_loadu_si512(b); }
  static Vec step(Operand a, Operand b, Vec c) { return {_mm512_dpbf16_ps(c.v, a, b)}; }

  static __mmask32 first(int64_t n) { return n >= 32 ? 0xffffffffu : n <= 0 ? 0u : (1u << n) - 1; }
  static void rows(const bf16* x, int64_t stride, int64_t rows, int64_t cols, Elem* to,
                   int64_t width) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < width; c += 16)
        _mm512_storeu_si512(to + r * width + c,
                            _mm512_maskz_loadu_epi16(first(cols - 2 * c), x + r * stride + 2 * c));
  }
  static void inner_rows(const bf16* x, int64_t stride, int64_t count, int64_t cols, Elem* to,
                         int64_t width) {
    for (int64_t r = 0; r < count; r += 2) {
      const bf16* low = x + r * stride;
      for (int64_t c = 0; c < width; c += 16) {
        const __mmask16 mask = static_cast<__mmask16>(first(cols - c));
        const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low + c));
        const __mmask16 second = r + 1 < count ? mask : __mmask16{0};
        const __m512i b = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, low + stride + c));
        _mm512_storeu_si512(to + (r / 2) * width + c, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
      }
    }
  }
  /// Rounds floats [rows][width] to pairs [rows][left_stride(width)].
  static const Elem* left(const float* x, int64_t rows, int64_t width, Elem* to) {
    const int64_t stride = left_stride(width);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < width; c += 32) {
        const __m512 low = _mm512_loadu_ps(x + r * width + c);
        const __m512 high =
            c + 16 < width ? _mm512_loadu_ps(x + r * width + c + 16) : _mm512_setzero_ps();
        _mm512_storeu_si512(to + r * stride + c / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
    return to;
  }
  static int64_t left_stride(int64_t width) { return (width + 31) / 32 * 16; }
};

}  // namespace
}  // namespace attune::kernels::ATTUNE_SET
