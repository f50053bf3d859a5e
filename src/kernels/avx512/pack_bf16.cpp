#include <immintrin.h>

#include "kernels/detail/pack.h"

#define ATTUNE_SET avx512bf16
#define ATTUNE_NATIVE_BF16
#include "kernels/detail/vec_avx512.h"

namespace attune::kernels::detail {

namespace {

using avx512bf16::Vec;

__mmask16 first(int64_t n) {
  return n >= 16  ? __mmask16{0xffff}
         : n <= 0 ? __mmask16{0}
                  : static_cast<__mmask16>((1u << n) - 1);
}
__mmask32 first32(int64_t n) {
  return n >= 32 ? 0xffffffffu : n <= 0 ? 0u : (1u << n) - 1;
}

/// 32 values as 16 pairs; those from the `count`-th on are zero.
__m512i pairs(const float* p, int64_t count) {
  const __m512 low = _mm512_maskz_loadu_ps(first(count), p);
  const __m512 high =
      count > 16 ? _mm512_maskz_loadu_ps(first(count - 16), p + 16) : _mm512_setzero_ps();
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}
__m512i pairs(const bf16* p, int64_t count) {
  return _mm512_maskz_loadu_epi16(first32(count), p);
}

/// 16 values, each in the low half of 32 bits.
__m512i halves(const float* p, int64_t count) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first(count), p)));
}
__m512i halves(const bf16* p, int64_t count) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(count), p));
}

constexpr int64_t kAhead = 2 * kPackDepth;  // elements of a row to be fetched meanwhile

/// One block of w [n, k]: rows of w become columns of pairs.
template <class T>
void block_of_transpose(const T* w, int64_t k, int64_t k_left, int64_t n_left, float* to) {
  for (int64_t c = 0; c < kPackWidth; c += 16) {
    alignas(64) float rows[16 * 16];
    for (int64_t r = 0; r < 16; ++r) {
      // As many streams as rows are more than the processor follows by itself.
      _mm_prefetch(reinterpret_cast<const char*>(w + (c + r) * k + kAhead), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(w + (c + r) * k + kAhead) + 64, _MM_HINT_T1);
      _mm512_store_si512(rows + r * 16,
                         c + r < n_left ? pairs(w + (c + r) * k, k_left) : _mm512_setzero_si512());
    }
    Vec::transpose(rows, 16, to + c, kPackWidth);
  }
}

/// 16 columns of the first two of `rows_left` rows as pairs, zeros beyond rows_left and count.
template <class T>
__m512i pairs_of_rows(const T* p, int64_t stride, int64_t rows_left, int64_t count) {
  const bool any = count > 0;
  const __m512i low = any && rows_left > 0 ? halves(p, count) : _mm512_setzero_si512(),
                high = any && rows_left > 1 ? halves(p + stride, count) : _mm512_setzero_si512();
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

/// One block of w [k, n]: two rows of w are interleaved.
template <class T>
void block_of_rows(const T* w, int64_t n, int64_t k_left, int64_t n_left, float* to) {
  for (int64_t p = 0; p < kPackDepth / 2; ++p)
    for (int64_t c = 0; c < kPackWidth; c += 16)
      _mm512_storeu_si512(to + p * kPackWidth + c,
                          pairs_of_rows(w + 2 * p * n + c, n, k_left - 2 * p, n_left - c));
}

/// 8 x 8 block of 64-bit values: pairs of rows, then 128-bit quarters.
void transpose64(const __m512i (&r)[8], __m512i (&out)[8]) {
  __m512i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
  }
  for (int odd = 0; odd < 2; ++odd) {
    const __m512i a = _mm512_shuffle_i64x2(t[odd], t[odd + 2], 0x44),
                  b = _mm512_shuffle_i64x2(t[odd], t[odd + 2], 0xee),
                  c = _mm512_shuffle_i64x2(t[odd + 4], t[odd + 6], 0x44),
                  d = _mm512_shuffle_i64x2(t[odd + 4], t[odd + 6], 0xee);
    out[odd] = _mm512_shuffle_i64x2(a, c, 0x88);
    out[odd + 2] = _mm512_shuffle_i64x2(a, c, 0xdd);
    out[odd + 4] = _mm512_shuffle_i64x2(b, d, 0x88);
    out[odd + 6] = _mm512_shuffle_i64x2(b, d, 0xdd);
  }
}

/// 16 pairs along k of 32 columns become 16 pairs of those columns in 32 places along k. Two
/// columns' pairs lie side by side: (a0 a1)(b0 b1) turn to (a0 b0)(a1 b1), and then those 64 bits
/// change rows for columns.
void turn_half_block(const uint32_t* from, uint32_t* to) {
  const __m512i order = _mm512_set4_epi32(0x0f0e0b0a, 0x0d0c0908, 0x07060302, 0x05040100);
  for (int p = 0; p < 16; p += 8)
    for (int q = 0; q < 16; q += 8) {
      __m512i rows[8], turned[8];
      for (int i = 0; i < 8; ++i)
        rows[i] =
            _mm512_shuffle_epi8(_mm512_loadu_si512(from + (p + i) * kPackWidth + 2 * q), order);
      transpose64(rows, turned);
      for (int i = 0; i < 8; ++i) _mm512_storeu_si512(to + (q + i) * kPackWidth + 2 * p, turned[i]);
    }
}

/// 32 rows of 16 columns of x, zeros beyond rows_left and cols_left, to 16 rows `stride` apart.
void turn_block(const bf16* x, int64_t x_stride, int64_t rows_left, int64_t cols_left, bf16* to,
                int64_t stride) {
  alignas(64) float pairs_of[16 * 16];  // row by row pairs of 16 columns
  for (int64_t p = 0; p < 16; ++p)
    _mm512_store_si512(pairs_of + 16 * p,
                       pairs_of_rows(x + 2 * p * x_stride, x_stride, rows_left - 2 * p, cols_left));
  float* out = reinterpret_cast<float*>(to);
  if (cols_left >= 16) return Vec::transpose(pairs_of, 16, out, stride / 2);
  alignas(64) float turned[16 * 16];
  Vec::transpose(pairs_of, 16, turned, 16);
  for (int64_t i = 0; i < cols_left; ++i)
    _mm512_storeu_ps(out + i * (stride / 2), _mm512_load_ps(turned + 16 * i));
}

}  // namespace

void turn_pairs_avx512(const bf16* from, int64_t k, int64_t n, int64_t from_k_stride,
                       int64_t from_n_stride, int64_t to_n_stride, int64_t to_k_stride, bf16* to) {
  const int64_t deep = (n + kPackDepth - 1) / kPackDepth, wide = (k + kPackWidth - 1) / kPackWidth,
                sources = (k + kPackDepth - 1) / kPackDepth;
#pragma omp parallel for collapse(2) schedule(static) if (k * n > 16384)
  for (int64_t j = 0; j < wide; ++j)
    for (int64_t i = 0; i < deep; ++i) {
      uint32_t* block = reinterpret_cast<uint32_t*>(to + j * to_k_stride + i * to_n_stride);
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t source = 2 * j + half;
        if (source < sources) {
          turn_half_block(reinterpret_cast<const uint32_t*>(from + i / 2 * from_n_stride +
                                                            source * from_k_stride) +
                              i % 2 * 32,
                          block + half * 32);
          continue;
        }
        for (int64_t q = 0; q < 16; ++q)
          for (int64_t c = 0; c < 32; c += 16)
            _mm512_storeu_si512(block + q * kPackWidth + half * 32 + c, _mm512_setzero_si512());
      }
    }
}

void turn_rows_avx512(const bf16* x, int64_t stride, int64_t rows, int64_t cols, bf16* to,
                      int64_t depth) {
  for (int64_t r = 0; r < depth; r += 32)
    for (int64_t c = 0; c < cols; c += 16)
      turn_block(x + r * stride + c, stride, rows - r, cols - c, to + c * depth + r, depth);
}

template <class T>
void pack_pairs_avx512(const T* w, int64_t k, int64_t n, bool transposed, int64_t k_stride,
                       int64_t n_stride, bf16* to) {
  const int64_t deep = (k + kPackDepth - 1) / kPackDepth, wide = (n + kPackWidth - 1) / kPackWidth;
#pragma omp parallel for collapse(2) schedule(static) if (k * n > 16384)
  for (int64_t j = 0; j < wide; ++j)
    for (int64_t i = 0; i < deep; ++i) {
      const int64_t k0 = i * kPackDepth, n0 = j * kPackWidth;
      float* block = reinterpret_cast<float*>(to + j * n_stride + i * k_stride);
      if (transposed)
        block_of_transpose(w + n0 * k + k0, k, k - k0, n - n0, block);
      else
        block_of_rows(w + k0 * n + n0, n, k - k0, n - n0, block);
    }
}

void pack_tiles_avx512(Tile tile, const void* of, int64_t k, int64_t n, bool transposed,
                       int64_t k_stride, int64_t n_stride, bf16* to) {
  constexpr int64_t kTile = kPackWidth;
  const int64_t deep = (k + kTile - 1) / kTile, wide = (n + kPackWidth - 1) / kPackWidth;
#pragma omp parallel for collapse(2) schedule(static) if (k * n > 16384)
  for (int64_t j = 0; j < wide; ++j)
    for (int64_t i = 0; i < deep; ++i) {
      alignas(64) bf16 values[kTile * kTile];
      if (transposed)
        tile(of, j * kTile, i * kTile, values);
      else
        tile(of, i * kTile, j * kTile, values);
      for (int64_t half = 0; half < 2 && i * kTile + half * kPackDepth < k; ++half) {
        float* block = reinterpret_cast<float*>(to + j * n_stride + (2 * i + half) * k_stride);
        if (transposed)
          block_of_transpose(values + half * kPackDepth, kTile, kPackDepth, kPackWidth, block);
        else
          block_of_rows(values + half * kPackDepth * kTile, kTile, kPackDepth, kPackWidth, block);
      }
    }
}

template void pack_pairs_avx512(const float*, int64_t, int64_t, bool, int64_t, int64_t, bf16*);
template void pack_pairs_avx512(const bf16*, int64_t, int64_t, bool, int64_t, int64_t, bf16*);

}  // namespace attune::kernels::detail
