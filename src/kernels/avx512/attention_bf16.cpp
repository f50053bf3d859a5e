#define ATTUNE_SET avx512bf16
#define ATTUNE_NATIVE_BF16

#include "kernels/detail/bf16_pack.h"
#include "kernels/detail/runtime.h"

namespace attune::kernels::avx512bf16 {

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
using AttentionPack = Bf16Pack;
#include "kernels/detail/attention_set.inl"

#define ATTUNE_T bf16
#include "kernels/detail/instantiate_attention.inl"
#undef ATTUNE_T

}  // namespace attune::kernels::avx512bf16
