#define ATTUNE_SET avx512bf16
#define ATTUNE_NATIVE_BF16

#include "kernels/detail/runtime.h"
#include "kernels/detail/vec_avx512.h"

namespace attune::kernels::avx512bf16 {

// Each of these builds on those before it.
// clang-format off
#include "kernels/detail/declare.inl"
#include "kernels/detail/lanes.inl"
#include "kernels/detail/philox.inl"
#include "kernels/detail/elementwise.inl"
#include "kernels/detail/norm.inl"
#include "kernels/detail/rotary.inl"
#include "kernels/detail/tables.inl"
// clang-format on

#define ATTUNE_T bf16
#include "kernels/detail/instantiate.inl"
#undef ATTUNE_T

}  // namespace attune::kernels::avx512bf16
