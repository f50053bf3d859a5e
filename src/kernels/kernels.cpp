#include "kernels/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/low_rank.h"

namespace attune::kernels {

namespace ref {
#include "kernels/detail/declare.inl"
}
namespace avx2 {
#include "kernels/detail/declare.inl"
}
namespace avx512 {
#include "kernels/detail/declare.inl"
}
namespace avx512bf16 {
#include "kernels/detail/declare.inl"
}
namespace amx {
#include "kernels/detail/declare.inl"
}

namespace {

/// Tags of the sets a type can run on; double has the reference only, and only bf16 gains from bf16
/// instructions. Tiles (AMX) serve attention alone; the other kernels do not multiply.
struct RefTag {};
struct Avx2Tag {};
struct Avx512Tag {};
struct Bf16Tag {};

/// Calls the best version for this CPU: `call` is given its tag.
template <class T, class Call>
auto choose(const Call& call) -> decltype(call(RefTag{})) {
  if constexpr (!std::is_same_v<T, double>) {
    const Isa set = isa();
    if constexpr (std::is_same_v<T, bf16>)
      if (set >= Isa::Avx512Bf16) return call(Bf16Tag{});
    if (set >= Isa::Avx512) return call(Avx512Tag{});
    if (set == Isa::Avx2) return call(Avx2Tag{});
  }
  return call(RefTag{});
}

}  // namespace

// The choice spelled once: `name` is the kernel, `...` its arguments. Branches a type cannot take
// are never made.
#define ATTUNE_RUN(T, name, ...)                           \
  choose<T>([&](auto tag) {                                \
    using Tag = decltype(tag);                             \
    if constexpr (std::is_same_v<Tag, Bf16Tag>) {          \
      return avx512bf16::name(__VA_ARGS__);                \
    } else if constexpr (std::is_same_v<Tag, Avx512Tag>) { \
      return avx512::name(__VA_ARGS__);                    \
    } else if constexpr (std::is_same_v<Tag, Avx2Tag>) {   \
      return avx2::name(__VA_ARGS__);                      \
    } else {                                               \
      return ref::name(__VA_ARGS__);                       \
    }                                                      \
  })

template <class T>
void activation_forward(Activation f, const T* x, T* y, int64_t count) {
  ATTUNE_RUN(T, activation_forward, f, x, y, count);
}
template <class T>
void activation_backward(Activation f, const T* x, const T* dy, T* dx, int64_t count) {
  ATTUNE_RUN(T, activation_backward, f, x, dy, dx, count);
}
template <class T>
void gated_forward(Activation f, const T* gate, const T* up, T* y, int64_t count) {
  ATTUNE_RUN(T, gated_forward, f, gate, up, y, count);
}
template <class T>
void gated_backward(Activation f, const T* gate, const T* up, const T* dy, T* dgate, T* dup,
                    int64_t count) {
  ATTUNE_RUN(T, gated_backward, f, gate, up, dy, dgate, dup, count);
}
template <class T>
void dropout(const T* x, T* y, int64_t rows, int64_t cols, const Dropout& drop) {
  if (drop.on()) {
    ATTUNE_RUN(T, dropout, x, y, rows, cols, drop);
  } else if (x != y && rows * cols > 0) {
    std::memmove(y, x, static_cast<size_t>(rows * cols) * sizeof(T));
  }
}
template <class T>
void add_inplace(T* y, const T* x, int64_t count) {
  ATTUNE_RUN(T, add_inplace, y, x, count);
}
void convert(const float* from, bf16* to, int64_t count) {
  ATTUNE_RUN(float, convert_values, from, to, count);
}
void convert(const bf16* from, float* to, int64_t count) {
  ATTUNE_RUN(float, convert_values, from, to, count);
}

template <class T>
void column_sum(const T* x, int64_t rows, int64_t cols, acc_t<T>* out, bool accumulate) {
  ATTUNE_RUN(T, column_sum, x, rows, cols, out, accumulate);
}
template <class T>
double sum_of_squares(const T* x, int64_t count) {
  // Only the portable version: its eight-lane loop has no transcendental work, and a clip norm must
  // not depend on the machine.
  return ref::sum_of_squares(x, count);
}
template <class T>
void norm_forward(NormKind kind, const T* x, const T* residual, const Dropout& drop,
                  const acc_t<T>* gamma, const acc_t<T>* beta, double eps, int64_t rows,
                  int64_t cols, T* h, T* y, acc_t<T>* mean, acc_t<T>* rstd) {
  ATTUNE_RUN(T, norm_forward, kind, x, residual, drop, gamma, beta, eps, rows, cols, h, y, mean,
             rstd);
}
template <class T>
void norm_backward(NormKind kind, const T* dy, const T* dh_extra, const T* h, const acc_t<T>* mean,
                   const acc_t<T>* rstd, const acc_t<T>* gamma, const Dropout& drop, int64_t rows,
                   int64_t cols, T* dh, T* dx, acc_t<T>* dgamma, acc_t<T>* dbeta) {
  ATTUNE_RUN(T, norm_backward, kind, dy, dh_extra, h, mean, rstd, gamma, drop, rows, cols, dh, dx,
             dgamma, dbeta);
}
template <class T>
void attention_forward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                       const T* k, const T* v, T* out, acc_t<T>* log_sums) {
  if constexpr (std::is_same_v<T, bf16>)
    if (isa() == Isa::AmxBf16) return amx::attention_forward(shape, bias, q, k, v, out, log_sums);
  ATTUNE_RUN(T, attention_forward, shape, bias, q, k, v, out, log_sums);
}
template <class T>
void attention_backward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                        const T* k, const T* v, const T* out, const acc_t<T>* log_sums,
                        const T* dout, T* dq, T* dk, T* dv) {
  if constexpr (std::is_same_v<T, bf16>)
    if (isa() == Isa::AmxBf16)
      return amx::attention_backward(shape, bias, q, k, v, out, log_sums, dout, dq, dk, dv);
  ATTUNE_RUN(T, attention_backward, shape, bias, q, k, v, out, log_sums, dout, dq, dk, dv);
}
template <class T>
void rotate(const Rotation<T>& rotation, const T* x, T* y, int64_t rows, bool back) {
  ATTUNE_RUN(T, rotate, rotation, x, y, rows, back);
}
template <class T>
void embedding_forward(int tables, const acc_t<T>* const* table, const int32_t* const* index,
                       int64_t rows, int64_t cols, T* y) {
  ATTUNE_RUN(T, embedding_forward<T>, tables, table, index, rows, cols, y);
}

namespace {

/// Rows in order of their index (stable), and where each run of equal indices begins.
struct Groups {
  std::vector<int32_t> order, starts;
};

Groups group_rows(const int32_t* index, int64_t rows) {
  std::vector<uint64_t> keys(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r)
    keys[r] =
        (static_cast<uint64_t>(static_cast<uint32_t>(index[r])) << 32) | static_cast<uint64_t>(r);
  std::sort(keys.begin(), keys.end());
  Groups groups;
  groups.order.resize(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) {
    groups.order[i] = static_cast<int32_t>(keys[i]);
    if (i == 0 || keys[i] >> 32 != keys[i - 1] >> 32)
      groups.starts.push_back(static_cast<int32_t>(i));
  }
  groups.starts.push_back(static_cast<int32_t>(rows));
  return groups;
}

}  // namespace

template <class T>
void embedding_backward(const T* dy, const int32_t* index, int64_t rows, int64_t cols, int64_t,
                        acc_t<T>* dtable) {
  if (rows == 0) return;
  const Groups groups = group_rows(index, rows);
  const int64_t count = static_cast<int64_t>(groups.starts.size()) - 1;
  const int32_t* order = groups.order.data();
  const int32_t* starts = groups.starts.data();
  ATTUNE_RUN(T, embedding_groups, dy, index, order, starts, count, cols, dtable);
}
template <class T>
void pool_forward(Pool kind, const T* x, const int32_t* offsets, int64_t sequences, int64_t cols,
                  acc_t<T>* y, int32_t* argmax) {
  ATTUNE_RUN(T, pool_forward, kind, x, offsets, sequences, cols, y, argmax);
}
template <class T>
void pool_backward(Pool kind, const acc_t<T>* dy, const int32_t* offsets, int64_t sequences,
                   int64_t cols, const int32_t* argmax, T* dx) {
  ATTUNE_RUN(T, pool_backward, kind, dy, offsets, sequences, cols, argmax, dx);
}
template <class T>
double cross_entropy(const T* logits, const int64_t* labels, const T* weights, double smoothing,
                     int64_t rows, int64_t classes, T* dlogits, double* count) {
  return ATTUNE_RUN(T, cross_entropy, logits, labels, weights, smoothing, rows, classes, dlogits,
                    count);
}
template <class T>
void adamw(const AdamW& options, T* p, const T* gradient, T* m, T* v, const uint8_t* mask,
           int64_t count) {
  ATTUNE_RUN(T, adamw, options, p, gradient, m, v, mask, count);
}
template <class T>
void adamw_rows(const AdamW& options, const int64_t* rows, int64_t n, const T* gradient, T* p, T* m,
                T* v, int64_t cols) {
  ATTUNE_RUN(T, adamw_rows, options, rows, n, gradient, p, m, v, cols);
}
AdamWRest adamw_rest(const AdamW& o) {
  const double step = static_cast<double>(o.step);
  return {1 - o.lr * o.weight_decay, o.lr / (1 - std::pow(o.beta1, step)),
          1 / std::sqrt(1 - std::pow(o.beta2, step))};
}
template <class T>
void adamw_missed(const AdamW& options, const AdamWRest* steps, int64_t count,
                  const MissedRow* rows, int64_t n, T* p, T* m, T* v, int64_t cols) {
  ATTUNE_RUN(T, adamw_missed, options, steps, count, rows, n, p, m, v, cols);
}

template <class T>
void low_rank_pass(const T* x, const T* in, int64_t rows, int64_t k, const Columns<T>& inner,
                   const LowRankTarget<T>* targets, int count) {
  ATTUNE_RUN(T, low_rank_pass, x, in, rows, k, inner, targets, count);
}
template <class T>
void low_rank_gradient(const Columns<const T>& inner, const T* x, int64_t rows, int64_t cols,
                       double scale, bool transposed, acc_t<T>* g) {
  ATTUNE_RUN(T, low_rank_gradient<T>, inner, x, rows, cols, scale, transposed, g);
}
template <class T>
void low_rank_turn(const acc_t<T>* up, int64_t n, int64_t rank, double scale, T* w) {
  ATTUNE_RUN(T, low_rank_turn<T>, up, n, rank, scale, w);
}

#define ATTUNE_T float
#include "kernels/detail/instantiate_low_rank.inl"
#include "kernels/detail/instantiate_public.inl"
#undef ATTUNE_T
#define ATTUNE_T bf16
#include "kernels/detail/instantiate_low_rank.inl"
#include "kernels/detail/instantiate_public.inl"
#undef ATTUNE_T
#define ATTUNE_T double
#include "kernels/detail/instantiate_low_rank.inl"
#include "kernels/detail/instantiate_public.inl"
#undef ATTUNE_T
template void adamw(const AdamW&, float*, const float*, float*, float*, const uint8_t*, int64_t);
template void adamw(const AdamW&, double*, const double*, double*, double*, const uint8_t*,
                    int64_t);
template void adamw_rows(const AdamW&, const int64_t*, int64_t, const float*, float*, float*,
                         float*, int64_t);
template void adamw_rows(const AdamW&, const int64_t*, int64_t, const double*, double*, double*,
                         double*, int64_t);
template void adamw_missed(const AdamW&, const AdamWRest*, int64_t, const MissedRow*, int64_t,
                           float*, float*, float*, int64_t);
template void adamw_missed(const AdamW&, const AdamWRest*, int64_t, const MissedRow*, int64_t,
                           double*, double*, double*, int64_t);

}  // namespace attune::kernels
