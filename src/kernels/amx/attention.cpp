#define ATTUNE_SET amx
#define ATTUNE_NATIVE_BF16

#include "kernels/amx/amx_pack.h"
#include "kernels/detail/runtime.h"

namespace attune::kernels::amx {

// Each of these builds on those before it.
// clang-format off
#include "kernels/detail/declare.inl"
#include "kernels/detail/lanes.inl"
#include "kernels/detail/philox.inl"
#include "kernels/detail/product.inl"
// clang-format on

namespace {

/// By tiles: rows of a and c up to the next 16 are read and written, and the inner dimension up to
/// the next 16 pairs.
template <>
void product<AmxPack>(int64_t rows, int64_t width, int64_t inner, const uint32_t* a, int64_t lda,
                      const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool add) {
  asm volatile("" ::: "memory");  // tile loads do not tell the compiler what they read
  for (int64_t w = 0; w < width; w += 32)
    for (int64_t r = 0; r < rows; r += 32) {
      const bool two_rows = r + 16 < rows, two_cols = w + 16 < width;
      const auto tiles = two_rows ? (two_cols ? amx_tiles<true, true> : amx_tiles<true, false>)
                                  : (two_cols ? amx_tiles<false, true> : amx_tiles<false, false>);
      tiles(inner, a + r * lda, lda, b + w, ldb, c + r * ldc + w, ldc, add);
    }
}

}  // namespace

// clang-format off
#include "kernels/detail/attention.inl"
#include "kernels/detail/attention_backward.inl"
// clang-format on

template <class T>
using AttentionPack = AmxPack;
#include "kernels/detail/attention_set.inl"

#define ATTUNE_T bf16
#include "kernels/detail/instantiate_attention.inl"
#undef ATTUNE_T

}  // namespace attune::kernels::amx
