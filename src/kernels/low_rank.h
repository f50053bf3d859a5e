#pragma once
#include "kernels/kernels.h"

/// Products with one narrow side: the side-cars of LoRA and its kin. For T = float, double and bf16
/// as in kernels.h; meant for ranks up to about 32, beyond which gemm.h is faster. No result
/// depends on the thread count.
namespace attune::kernels {

/// inner = x in^T, and y += inner out. x [rows, k], in [rank, k], out [rank, n], inner [rows,
/// rank], y [rows, n]; y may be null (out is not read then). Sums in acc_t; inner is rounded to T
/// before it is used. Forward of a side-car with in = down, out = scale up^T; its backward to x
/// with the two exchanged and x, y = dy, dx.
template <class T>
void low_rank_pass(const T* x, const T* in, const T* out, int64_t rows, int64_t k, int64_t n,
                   int64_t rank, T* inner, T* y);
/// g = scale inner^T x, [rank, cols], or [cols, rank] when `transposed`: inner [rows, rank], x
/// [rows, cols].
template <class T>
void low_rank_gradient(const T* inner, const T* x, int64_t rows, int64_t cols, int64_t rank,
                       double scale, bool transposed, acc_t<T>* g);
/// w [rank, n] = scale up^T, rounded to T; up [n, rank].
template <class T>
void low_rank_turn(const acc_t<T>* up, int64_t n, int64_t rank, double scale, T* w);

}  // namespace attune::kernels
