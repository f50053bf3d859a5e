#pragma once
#include <immintrin.h>

#include "kernels/detail/bf16_pack.h"

namespace attune::kernels::ATTUNE_SET {
namespace {

/// Pairs of bf16 as Bf16Pack has them, multiplied in tiles of 16 x 16 results and 32 terms.
struct AmxPack : Bf16Pack {
  static constexpr int64_t kRowBlock = 16, kInnerBlock = 16;
  /// Eight whole tiles. oneDNN configures its own, so that each task begins anew.
  struct Session {
    struct alignas(64) Config {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    Session() {
      static constexpr Config kWhole;
      _tile_loadconfig(&kWhole);
    }
    ~Session() { _tile_release(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };
};

/// One or two by one or two tiles of c (+)= a b.
template <bool TwoRows, bool TwoCols>
void amx_tiles(int64_t inner, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
               float* c, int64_t ldc, bool add) {
  const int64_t a_bytes = lda * 4, b_bytes = ldb * 4, c_bytes = ldc * 4;
  float* below = c + 16 * ldc;
  if (add) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (TwoCols) _tile_loadd(1, c + 16, c_bytes);
    if constexpr (TwoRows) _tile_loadd(2, below, c_bytes);
    if constexpr (TwoRows && TwoCols) _tile_loadd(3, below + 16, c_bytes);
  } else {
    _tile_zero(0);
    if constexpr (TwoCols) _tile_zero(1);
    if constexpr (TwoRows) _tile_zero(2);
    if constexpr (TwoRows && TwoCols) _tile_zero(3);
  }
  for (int64_t p = 0; p < inner; p += 16) {
    _tile_loadd(4, a + p, a_bytes);
    _tile_loadd(6, b + p * ldb, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (TwoCols) {
      _tile_loadd(7, b + p * ldb + 16, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (TwoRows) {
      _tile_loadd(5, a + 16 * lda + p, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (TwoCols) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (TwoCols) _tile_stored(1, c + 16, c_bytes);
  if constexpr (TwoRows) _tile_stored(2, below, c_bytes);
  if constexpr (TwoRows && TwoCols) _tile_stored(3, below + 16, c_bytes);
}

}  // namespace
}  // namespace attune::kernels::ATTUNE_SET
