// Explicit instantiations of low_rank.h for type ATTUNE_T.
template void low_rank_pass(const ATTUNE_T*, const ATTUNE_T*, int64_t, int64_t,
                            const Columns<ATTUNE_T>&, const LowRankTarget<ATTUNE_T>*, int);
template void low_rank_gradient(const Columns<const ATTUNE_T>&, const ATTUNE_T*, int64_t, int64_t,
                                double, bool, acc_t<ATTUNE_T>*);
template void low_rank_turn(const acc_t<ATTUNE_T>*, int64_t, int64_t, double, ATTUNE_T*);
