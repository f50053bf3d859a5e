#include "kernels/detail/runtime.h"
#include "kernels/detail/vec_avx2.h"

namespace attune::kernels::avx2 {

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

#define ATTUNE_T float
#include "kernels/detail/instantiate.inl"
#undef ATTUNE_T
#define ATTUNE_T bf16
#include "kernels/detail/instantiate.inl"
#undef ATTUNE_T
template void convert_values(const float*, bf16*, int64_t);
template void convert_values(const bf16*, float*, int64_t);
template void adamw(const AdamW&, float*, const float*, float*, float*, const uint8_t*, int64_t);
template void adamw_rows(const AdamW&, const int64_t*, int64_t, const float*, float*, float*,
                         float*, int64_t);
template void adamw_missed(const AdamW&, const AdamWRest*, int64_t, const MissedRow*, int64_t,
                           float*, float*, float*, int64_t);

}  // namespace attune::kernels::avx2
