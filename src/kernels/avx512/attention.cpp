#define ATTUNE_SET avx512

#include "kernels/detail/runtime.h"
#include "kernels/detail/vec_avx512.h"

namespace attune::kernels::avx512 {

// Each of these builds on those before it.
// clang-format off
#include "kernels/detail/declare.inl"
#include "kernels/detail/lanes.inl"
#include "kernels/detail/philox.inl"
#include "kernels/detail/product.inl"
#include "kernels/detail/attention.inl"
#include "kernels/detail/attention_backward.inl"
// clang-format on

template <class T>
using AttentionPack = FloatPack<vec_for<T>>;
#include "kernels/detail/attention_set.inl"

#define ATTUNE_T float
#include "kernels/detail/instantiate_attention.inl"
#undef ATTUNE_T
#define ATTUNE_T bf16
#include "kernels/detail/instantiate_attention.inl"
#undef ATTUNE_T

}  // namespace attune::kernels::avx512
