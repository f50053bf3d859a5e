#pragma once
#include <functional>
#include <vector>

#include "kernels/gemm.h"

namespace attune::kernels::detail {

/// Rows are cut into a part that is a multiple of kRowBlock and a tail, padded with zero rows to a
/// multiple of kTailBlock in scratch memory. The number of rows changes from batch to batch; oneDNN
/// compiles a primitive for each size it meets, which takes longer than the product itself. With
/// blocks, few sizes ever occur.
constexpr int64_t kRowBlock = 64, kTailBlock = 16;

/// c = a B (+ c): `run` multiplies one part of the rows of a into the same rows of c.
using RowProduct = std::function<void(const Matrix& a, const MutableMatrix& c)>;
void product_by_rows(const Matrix& a, const MutableMatrix& c, bool accumulate,
                     const RowProduct& run);

/// Products of so many rows for each thread run in pieces of kRowsAPiece at most by
/// detail::share_out rather than in oneDNN's equal parts: those of an operand that is not packed,
/// which every piece packs for itself, and those of a packed one.
constexpr int64_t kRowsToShare = 512, kPackedRowsToShare = 64, kRowsAPiece = 256;

struct RowPiece {
  int64_t begin, rows;
};

/// The pieces of a product by a packed operand: as many of one part of the rows for every thread,
/// cut evenly, with no row beside those that are there. So that few sizes ever occur all are
/// multiples of 8 rows (16 for tiles) but the last, which is a block of kRowBlock and what is over.
std::vector<RowPiece> row_pieces(int64_t rows, int64_t threads);

/// c = a^T b (+ c) over shared stored rows (weight gradients): `run` multiplies one part of them.
using InnerProduct = std::function<void(const Matrix& a, const Matrix& b, bool accumulate)>;
void product_by_inner(const Matrix& a, const Matrix& b, bool accumulate, const InnerProduct& run);

}  // namespace attune::kernels::detail
