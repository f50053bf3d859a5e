#pragma once
#include <cstdint>

#include "kernels/kernels.h"

/// oneDNN's layout of a bf16 right operand [k, n]: blocks of 32 x 64, in each the 16 pairs along k
/// one after another, 64 columns a pair; sizes are padded with zeros to whole blocks.
namespace attune::kernels::detail {

constexpr int64_t kPackDepth = 32, kPackWidth = 64;

/// Writes [k, n] in that layout; `k_stride` and `n_stride` are elements between blocks. w is [n, k]
/// when `transposed`, else [k, n], dense. T = float (rounded to nearest even, subnormals to zero)
/// or bf16. Only for CPUs with AVX-512 BF16.
template <class T>
void pack_pairs_avx512(const T* w, int64_t k, int64_t n, bool transposed, int64_t k_stride,
                       int64_t n_stride, bf16* to);

/// Rows [row, row + 64) and columns [col, col + 64) of a matrix, zero beyond it, [64, 64].
using Tile = void (*)(const void* of, int64_t row, int64_t col, bf16* to);
/// The same of a matrix w (as for pack_pairs_avx512) that is made a tile at a time; `tile` is
/// called inside a parallel region.
void pack_tiles_avx512(Tile tile, const void* of, int64_t k, int64_t n, bool transposed,
                       int64_t k_stride, int64_t n_stride, bf16* to);

/// From [k, n] in that layout to its transpose [n, k] in that layout; `to` strides as `from`'s,
/// between blocks along n and along k.
void turn_pairs_avx512(const bf16* from, int64_t k, int64_t n, int64_t from_k_stride,
                       int64_t from_n_stride, int64_t to_n_stride, int64_t to_k_stride, bf16* to);

/// The transpose of x [rows, cols], whose rows are `stride` elements apart: [cols, depth], zeros
/// from `rows` on. depth: rows rounded up to kPackDepth. One thread.
void turn_rows_avx512(const bf16* x, int64_t stride, int64_t rows, int64_t cols, bf16* to,
                      int64_t depth);

}  // namespace attune::kernels::detail
