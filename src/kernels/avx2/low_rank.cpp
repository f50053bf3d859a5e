#define ATTUNE_SET avx2

#include "kernels/detail/runtime.h"
#include "kernels/detail/vec_avx2.h"

namespace attune::kernels::avx2 {

// Each of these builds on those before it.
// clang-format off
#include "kernels/detail/declare.inl"
#include "kernels/detail/lanes.inl"
#include "kernels/detail/product.inl"
template <class T>
using pack_for = FloatPack<vec_for<T>>;
#include "kernels/detail/low_rank.inl"
// clang-format on

#define ATTUNE_T float
#include "kernels/detail/instantiate_low_rank.inl"
#undef ATTUNE_T
#define ATTUNE_T bf16
#include "kernels/detail/instantiate_low_rank.inl"
#undef ATTUNE_T

}  // namespace attune::kernels::avx2
