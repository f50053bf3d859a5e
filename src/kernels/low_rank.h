#pragma once
#include "kernels/kernels.h"

/// Products with one narrow side: the side-cars of LoRA and its kin. For T = float, double and bf16
/// as in kernels.h; meant for ranks up to about 32, beyond which gemm.h is faster. No result
/// depends on the thread count.
namespace attune::kernels {

/// Columns [first, first + rank) of [rows, width] at `data`.
template <class T>
struct Columns {
  T* data;
  int64_t first, rank, width;
};
/// y += inner out over some columns of inner: out [columns.rank, n], y [rows, n].
template <class T>
struct LowRankTarget {
  Columns<const T> inner;
  const T* out;
  int64_t n;
  T* y;
};
/// The columns `inner` become x in^T, x [rows, k], in [inner.rank, k]; then every target (of the
/// same rows, the columns just made or others) gets its product. Sums in acc_t; inner is rounded
/// to T before it is used. Forward of side-cars at one input with in = their downs one after
/// another, out = scale up^T; a side-car's backward to x with the two exchanged and x, y = dy, dx.
template <class T>
void low_rank_pass(const T* x, const T* in, int64_t rows, int64_t k, const Columns<T>& inner,
                   const LowRankTarget<T>* targets, int count);
/// g = scale inner^T x, [inner.rank, cols], or [cols, inner.rank] when `transposed`: x [rows,
/// cols].
template <class T>
void low_rank_gradient(const Columns<const T>& inner, const T* x, int64_t rows, int64_t cols,
                       double scale, bool transposed, acc_t<T>* g);
/// w [rank, n] = scale up^T, rounded to T; up [n, rank].
template <class T>
void low_rank_turn(const acc_t<T>* up, int64_t n, int64_t rank, double scale, T* w);

}  // namespace attune::kernels
