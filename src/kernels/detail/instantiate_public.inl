// Explicit instantiations of kernels.h for type ATTUNE_T.
template void activation_forward(Activation, const ATTUNE_T*, ATTUNE_T*, int64_t);
template void activation_backward(Activation, const ATTUNE_T*, const ATTUNE_T*, ATTUNE_T*, int64_t);
template void gated_forward(Activation, const ATTUNE_T*, const ATTUNE_T*, ATTUNE_T*, int64_t);
template void gated_backward(Activation, const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*,
                             ATTUNE_T*, ATTUNE_T*, int64_t);
template void dropout(const ATTUNE_T*, ATTUNE_T*, int64_t, int64_t, const Dropout&);
template void add_inplace(ATTUNE_T*, const ATTUNE_T*, int64_t);
template void column_sum(const ATTUNE_T*, int64_t, int64_t, acc_t<ATTUNE_T>*, bool);
template double sum_of_squares(const ATTUNE_T*, int64_t);
template void norm_forward(NormKind, const ATTUNE_T*, const ATTUNE_T*, const Dropout&,
                           const acc_t<ATTUNE_T>*, const acc_t<ATTUNE_T>*, double, int64_t, int64_t,
                           ATTUNE_T*, ATTUNE_T*, acc_t<ATTUNE_T>*, acc_t<ATTUNE_T>*);
template void norm_backward(NormKind, const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*,
                            const acc_t<ATTUNE_T>*, const acc_t<ATTUNE_T>*, const acc_t<ATTUNE_T>*,
                            const Dropout&, int64_t, int64_t, ATTUNE_T*, ATTUNE_T*,
                            acc_t<ATTUNE_T>*, acc_t<ATTUNE_T>*);
template void rotate(const Rotation<ATTUNE_T>&, const ATTUNE_T*, ATTUNE_T*, int64_t, bool);
template void embedding_forward(int, const acc_t<ATTUNE_T>* const*, const int32_t* const*, int64_t,
                                int64_t, ATTUNE_T*);
template void pool_forward(Pool, const ATTUNE_T*, const int32_t*, int64_t, int64_t,
                           acc_t<ATTUNE_T>*, int32_t*);
template void pool_backward(Pool, const acc_t<ATTUNE_T>*, const int32_t*, int64_t, int64_t,
                            const int32_t*, ATTUNE_T*);
template double cross_entropy(const ATTUNE_T*, const int64_t*, const ATTUNE_T*, double, int64_t,
                              int64_t, ATTUNE_T*, double*);
template void attention_forward(const AttentionShape&, const AttentionBias<ATTUNE_T>&,
                                const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*, ATTUNE_T*,
                                acc_t<ATTUNE_T>*);
template void attention_backward(const AttentionShape&, const AttentionBias<ATTUNE_T>&,
                                 const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*,
                                 const acc_t<ATTUNE_T>*, const ATTUNE_T*, ATTUNE_T*, ATTUNE_T*,
                                 ATTUNE_T*);
template void embedding_backward(const ATTUNE_T*, const int32_t*, int64_t, int64_t, int64_t,
                                 acc_t<ATTUNE_T>*);
