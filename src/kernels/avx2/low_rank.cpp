#define ATTUNE_SET avx2

#include "kernels/detail/runtime.h"
#include "kernels/detail/vec_avx2.h"

namespace attune::kernels::avx2 {

// Each of these builds on those before it.
// clang-format off
#include "kernels/detail/declare.inl"
#include "kernels/detail/lanes.inl"
#include "kernels/detail/product.inl"
#include "kernels/detail/low_rank.inl"
// clang-format on

template <class T>
void low_rank_pass(const T* x, const T* in, const T* out, int64_t rows, int64_t k, int64_t n,
                   int64_t rank, T* inner, T* y) {
  low_rank_pass_with<T, FloatPack<vec_for<T>>>(x, in, out, rows, k, n, rank, inner, y);
}
template <class T>
void low_rank_gradient(const T* inner, const T* x, int64_t rows, int64_t cols, int64_t rank,
                       double scale, bool transposed, acc_t<T>* g) {
  low_rank_gradient_with<T, FloatPack<vec_for<T>>>(inner, x, rows, cols, rank, scale, transposed,
                                                   g);
}

#define ATTUNE_T float
#include "kernels/detail/instantiate_low_rank.inl"
#undef ATTUNE_T
#define ATTUNE_T bf16
#include "kernels/detail/instantiate_low_rank.inl"
#undef ATTUNE_T

}  // namespace attune::kernels::avx2
