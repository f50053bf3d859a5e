#include "kernels/detail/runtime.h"
#include "kernels/detail/vec_avx2.h"

namespace attune::kernels::avx2 {

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
void attention_forward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                       const T* k, const T* v, T* out, acc_t<T>* log_sum_exp) {
  attention_forward_with(
      AttentionForward<T, FloatPack<vec_for<T>>>{shape, bias, q, k, v, out, log_sum_exp});
}
template <class T>
void attention_backward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                        const T* k, const T* v, const T* out, const acc_t<T>* log_sum_exp,
                        const T* dout, T* dq, T* dk, T* dv) {
  attention_backward_with(AttentionBackward<T, FloatPack<vec_for<T>>>{
      shape, bias, q, k, v, out, log_sum_exp, dout, dq, dk, dv});
}

template void attention_forward(const AttentionShape&, const AttentionBias<float>&, const float*,
                                const float*, const float*, float*, acc_t<float>*);
template void attention_backward(const AttentionShape&, const AttentionBias<float>&, const float*,
                                 const float*, const float*, const float*, const acc_t<float>*,
                                 const float*, float*, float*, float*);
template void attention_forward(const AttentionShape&, const AttentionBias<bf16>&, const bf16*,
                                const bf16*, const bf16*, bf16*, acc_t<bf16>*);
template void attention_backward(const AttentionShape&, const AttentionBias<bf16>&, const bf16*,
                                 const bf16*, const bf16*, const bf16*, const acc_t<bf16>*,
                                 const bf16*, bf16*, bf16*, bf16*);

}  // namespace attune::kernels::avx2
