// The kernels of one instruction set. Included inside attune::kernels::<set>; contracts are those
// of kernels.h.
template <class T>
void activation_forward(Activation f, const T* x, T* y, int64_t count);
template <class T>
void activation_backward(Activation f, const T* x, const T* dy, T* dx, int64_t count);
template <class T>
void gated_forward(Activation f, const T* gate, const T* up, T* y, int64_t count);
template <class T>
void gated_backward(Activation f, const T* gate, const T* up, const T* dy, T* dgate, T* dup,
                    int64_t count);
template <class T>
void dropout(const T* x, T* y, int64_t rows, int64_t cols, const Dropout& drop);
template <class T>
void add_inplace(T* y, const T* x, int64_t count);
template <class From, class To>
void convert_values(const From* from, To* to, int64_t count);
template <class T>
void column_sum(const T* x, int64_t rows, int64_t cols, acc_t<T>* out, bool accumulate);
template <class T>
double sum_of_squares(const T* x, int64_t count);
template <class T>
void norm_forward(NormKind kind, const T* x, const T* residual, const Dropout& drop,
                  const acc_t<T>* gamma, const acc_t<T>* beta, double eps, int64_t rows,
                  int64_t cols, T* h, T* y, acc_t<T>* mean, acc_t<T>* rstd);
template <class T>
void norm_backward(NormKind kind, const T* dy, const T* dh_extra, const T* h, const acc_t<T>* mean,
                   const acc_t<T>* rstd, const acc_t<T>* gamma, const Dropout& drop, int64_t rows,
                   int64_t cols, T* dh, T* dx, acc_t<T>* dgamma, acc_t<T>* dbeta);
template <class T>
void attention_forward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                       const T* k, const T* v, T* out, acc_t<T>* log_sums);
template <class T>
void attention_backward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                        const T* k, const T* v, const T* out, const acc_t<T>* log_sums,
                        const T* dout, T* dq, T* dk, T* dv);
template <class T>
void rotate(const Rotation<T>& rotation, const T* x, T* y, int64_t rows, bool back);
template <class T>
void embedding_forward(int tables, const acc_t<T>* const* table, const int32_t* const* index,
                       int64_t rows, int64_t cols, T* y);
/// dtable[index[order[i]]] += dy[order[i]]; group g is order[starts[g]] .. order[starts[g + 1] -
/// 1], one index each.
template <class T>
void embedding_groups(const T* dy, const int32_t* index, const int32_t* order,
                      const int32_t* starts, int64_t groups, int64_t cols, acc_t<T>* dtable);
template <class T>
void pool_forward(Pool kind, const T* x, const int32_t* offsets, int64_t sequences, int64_t cols,
                  acc_t<T>* y, int32_t* argmax);
template <class T>
void pool_backward(Pool kind, const acc_t<T>* dy, const int32_t* offsets, int64_t sequences,
                   int64_t cols, const int32_t* argmax, T* dx);
template <class T>
double cross_entropy(const T* logits, const int64_t* labels, const T* weights, double smoothing,
                     int64_t rows, int64_t classes, T* dlogits, double* count);
template <class T>
void adamw(const AdamW& options, T* p, const T* gradient, T* m, T* v, const uint8_t* mask,
           int64_t count);
template <class T>
void adamw_rows(const AdamW& options, const int64_t* rows, int64_t n, const T* gradient, T* p, T* m,
                T* v, int64_t cols);
template <class T>
void adamw_missed(const AdamW& options, const AdamWRest* steps, int64_t count,
                  const MissedRow* rows, int64_t n, T* p, T* m, T* v, int64_t cols);
template <class T>
void low_rank_pass(const T* x, const T* in, int64_t rows, int64_t k, const Columns<T>& inner,
                   const LowRankTarget<T>* targets, int count);
template <class T>
void low_rank_gradient(const Columns<const T>& inner, const T* x, int64_t rows, int64_t cols,
                       double scale, bool transposed, acc_t<T>* g);
template <class T>
void low_rank_turn(const acc_t<T>* up, int64_t n, int64_t rank, double scale, T* w);
