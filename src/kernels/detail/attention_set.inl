// Attention as one instruction set offers it; included inside attune::kernels::<set> after
// attention_backward.inl and AttentionPack, the packing its products take for a type.
template <class T>
void attention_forward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                       const T* k, const T* v, T* out, acc_t<T>* log_sums) {
  attention_forward_with(
      AttentionForward<T, AttentionPack<T>>{shape, bias, q, k, v, out, log_sums});
}
template <class T>
void attention_backward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                        const T* k, const T* v, const T* out, const acc_t<T>* log_sums,
                        const T* dout, T* dq, T* dk, T* dv) {
  attention_backward_with(AttentionBackward<T, AttentionPack<T>>{
      shape, bias, q, k, v, out, log_sums, dout, dq, dk, dv});
}
