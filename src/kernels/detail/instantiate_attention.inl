// Explicit instantiations of attention for type ATTUNE_T; included inside attune::kernels::<set>.
template void attention_forward(const AttentionShape&, const AttentionBias<ATTUNE_T>&,
                                const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*, ATTUNE_T*,
                                acc_t<ATTUNE_T>*);
template void attention_backward(const AttentionShape&, const AttentionBias<ATTUNE_T>&,
                                 const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*, const ATTUNE_T*,
                                 const acc_t<ATTUNE_T>*, const ATTUNE_T*, ATTUNE_T*, ATTUNE_T*,
                                 ATTUNE_T*);
