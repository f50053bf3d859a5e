#pragma once
#include <cstdint>

/// Raw-pointer kernels. Every function exists for T = float, double and bf16 (explicit
/// instantiations); sums are kept in acc_t<T> (float for float and bf16, double for double). float
/// and bf16 choose an instruction set at run time (isa()); double is the reference. Results depend
/// on the thread count only where said.
namespace attune::kernels {

struct bf16 {
  uint16_t bits;
};
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using acc_t = typename Accumulator<T>::type;

enum class Isa : uint8_t { Ref, Avx2, Avx512, Avx512Bf16, AmxBf16 };
constexpr Isa kBestIsa = Isa::AmxBf16;
/// The best set this CPU has; ATTUNE_ISA=ref|avx2|avx512|avx512_bf16 lowers it.
Isa isa();
const char* isa_name(Isa isa);
/// Makes isa() answer `limit` or less until called again with kBestIsa (tests only).
void limit_isa(Isa limit);
/// Threads the kernels use (an OpenMP setting of this process). Set once at start.
void set_threads(int threads);
int threads();

/// Dropout by counter-based bits: element (row, column) is kept iff the 16-bit lane column % 8
/// (lane l = half l % 2, low first, of word l / 2) of Philox4x32-10 with counter {column / 8, site,
/// stream, 0} and key row_keys[row] is
/// >= round(p * 65536). Kept values are scaled by 1 / (1 - p). p = 0 or no keys: off.
/// Differs: p is rounded to a multiple of 1/65536 in the choice of elements, not in the scale.
struct Dropout {
  float p = 0;
  const uint64_t* row_keys = nullptr;
  uint32_t site = 0;
  bool on() const { return p > 0 && row_keys != nullptr; }
};

// ---- elementwise
// ------------------------------------------------------------------------------------------
enum class Activation : uint8_t { Gelu, GeluTanh, QuickGelu, Silu, Relu, Tanh, Sigmoid, Identity };

/// y = f(x), count elements.
template <class T>
void activation_forward(Activation f, const T* x, T* y, int64_t count);
/// dx = dy * f'(x). dx may equal dy.
template <class T>
void activation_backward(Activation f, const T* x, const T* dy, T* dx, int64_t count);
/// y = f(gate) * up. In the backward dup may equal dy.
template <class T>
void gated_forward(Activation f, const T* gate, const T* up, T* y, int64_t count);
template <class T>
void gated_backward(Activation f, const T* gate, const T* up, const T* dy, T* dgate, T* dup,
                    int64_t count);

/// y = dropout(x); its backward is the same function on dy. x may equal y. [rows, cols].
template <class T>
void dropout(const T* x, T* y, int64_t rows, int64_t cols, const Dropout& drop);
/// y += x.
template <class T>
void add_inplace(T* y, const T* x, int64_t count);
/// Rounds to nearest even; NaN stays NaN.
void convert(const float* from, bf16* to, int64_t count);
void convert(const bf16* from, float* to, int64_t count);

// ---- reductions
// -------------------------------------------------------------------------------------------
/// out[c] = (accumulate ? out[c] : 0) + sum over rows of x[r, c].
template <class T>
void column_sum(const T* x, int64_t rows, int64_t cols, acc_t<T>* out, bool accumulate);
/// Sum of squares in double over fixed chunks: the same for every thread count. Stops at nothing:
/// NaN and inf propagate.
template <class T>
double sum_of_squares(const T* x, int64_t count);

// ---- normalisation
// ----------------------------------------------------------------------------------------
enum class NormKind : uint8_t { Layer, Rms };
/// h = dropout(x) + residual (residual may be null); y = norm(h) * gamma + beta (beta may be null).
/// x, residual, h, y: [rows, cols]; mean, rstd: [rows], kept for the backward (mean unused by Rms);
/// h may be null when neither dropout nor residual is present (then h is x). Statistics in acc_t.
template <class T>
void norm_forward(NormKind kind, const T* x, const T* residual, const Dropout& drop,
                  const acc_t<T>* gamma, const acc_t<T>* beta, double eps, int64_t rows,
                  int64_t cols, T* h, T* y, acc_t<T>* mean, acc_t<T>* rstd);
/// From dy and the saved h: dh (gradient of h, which is the residual's gradient; may be null), dx =
/// dropout mask * dh (may equal dh when dropout is off; may be null). dgamma, dbeta [cols]: added
/// to when not null. `dh_extra` (may be null): a second gradient of h itself, added in (pre-norm
/// blocks).
template <class T>
void norm_backward(NormKind kind, const T* dy, const T* dh_extra, const T* h, const acc_t<T>* mean,
                   const acc_t<T>* rstd, const acc_t<T>* gamma, const Dropout& drop, int64_t rows,
                   int64_t cols, T* dh, T* dx, acc_t<T>* dgamma, acc_t<T>* dbeta);

// ---- attention
// --------------------------------------------------------------------------------------------
/// Packed variable-length attention. Sequence b owns query rows [q_offsets[b], q_offsets[b+1]) and
/// key rows [k_offsets[b], k_offsets[b+1]) (the same array for self-attention). q: [q_rows, heads,
/// head_size] with row stride q_stride; k, v: [k_rows, kv_heads, head_size]; out: [q_rows, heads *
/// head_size] dense. Each kv head serves a consecutive run of heads / kv_heads query heads.
/// head_size is any positive number.
struct AttentionShape {
  int64_t sequences = 0;
  const int32_t* q_offsets = nullptr;
  const int32_t* k_offsets = nullptr;
  int64_t heads = 0, kv_heads = 0, head_size = 0;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;  // elements between rows
  double scale = 1;
  // Query i stands at key position i + (k_length - q_length): the last query beside the last key.
  bool causal = false;  // a query sees keys j <= its position
  int64_t window = 0;   // > 0: and |position - j| < window
  // Self-attention whose rows do not stand one after another (some left): positions [q_rows] of the
  // queries, which are those of the last keys too; earlier keys count back from the first. Only the
  // bias looks at them. Null: counted.
  const int32_t* positions = nullptr;
  Dropout drop;  // on probabilities: element (query row, key position j in its sequence), stream =
                 // head + 1
  // More than 1, of one head: so many rows of q one after another are the heads of one query, and
  // row r draws as head r % heads_in_rows of query r / heads_in_rows.
  int64_t heads_in_rows = 1;
};
/// Optional additive bias on scores: value(head, clamp(distance, -reach, reach) + reach) from a
/// table [heads, 2 * reach + 1] (relative biases), distance = key's position - query's; null table:
/// none. acc_t so that bf16 runs keep float biases.
template <class T>
struct AttentionBias {
  const acc_t<T>* table = nullptr;
  acc_t<T>* gradient = nullptr;  // backward: added to when not null
  int64_t reach = 0;
};
/// out and log_sums [q_rows, heads] (log2 of the sum of exp of scaled scores).
template <class T>
void attention_forward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                       const T* k, const T* v, T* out, acc_t<T>* log_sums);
/// Keys whose scores are alive at once; those of longer sequences are taken chunk by chunk.
constexpr int64_t kKeyChunk = 512;
/// Recomputes probabilities from log_sums. out may be null where no sequence has more than
/// kKeyChunk keys: dO . O of a row is then summed as P . dP, which is the same (Dao et al. 2022,
/// "FlashAttention", arXiv 2205.14135, equation 4). dq, dk, dv: dense rows [rows, heads *
/// head_size] (kv_heads for k, v), overwritten. A sequence with no keys gives zeros. Where v is k
/// (of one stride), dv may be dk: it gets the sum of both.
template <class T>
void attention_backward(const AttentionShape& shape, const AttentionBias<T>& bias, const T* q,
                        const T* k, const T* v, const T* out, const acc_t<T>* log_sums,
                        const T* dout, T* dq, T* dk, T* dv);

// ---- rotary positions
// -------------------------------------------------------------------------------------
/// How heads [rows, heads, head_size] turn with their row's position: the first `dims` (even)
/// elements of every head are pairs, (j, j + dims / 2), or (2 j, 2 j + 1) when interleaved; the
/// rest stays. cosines, sines [rows, dims / 2] by (row, pair).
template <class T>
struct Rotation {
  const acc_t<T>* cosines = nullptr;
  const acc_t<T>* sines = nullptr;
  int64_t heads = 0, head_size = 0, dims = 0;
  bool interleaved = false;
};
/// (a, b) -> (a cos - b sin, b cos + a sin), or with `back` its transpose, which is the gradient.
/// y may equal x.
template <class T>
void rotate(const Rotation<T>& rotation, const T* x, T* y, int64_t rows, bool back);

// ---- embeddings
// -------------------------------------------------------------------------------------------
/// y[r] = sum over tables t of table_t[index_t[r]]; up to 4 tables [*, cols] in acc_t. Indices are
/// checked by the caller.
template <class T>
void embedding_forward(int tables, const acc_t<T>* const* table, const int32_t* const* index,
                       int64_t rows, int64_t cols, T* y);
/// dtable[index[r]] += dy[r], deterministically for every thread count (rows are sorted by index
/// first).
template <class T>
void embedding_backward(const T* dy, const int32_t* index, int64_t rows, int64_t cols,
                        int64_t vocabulary, acc_t<T>* dtable);

// ---- pooling
// ----------------------------------------------------------------------------------------------
enum class Pool : uint8_t { First, Last, Mean, Max };
/// y[b] from rows [offsets[b], offsets[b+1]) of x [rows, cols]; argmax [sequences, cols] is written
/// for Max.
template <class T>
void pool_forward(Pool kind, const T* x, const int32_t* offsets, int64_t sequences, int64_t cols,
                  acc_t<T>* y, int32_t* argmax);
/// dx [rows, cols] overwritten.
template <class T>
void pool_backward(Pool kind, const acc_t<T>* dy, const int32_t* offsets, int64_t sequences,
                   int64_t cols, const int32_t* argmax, T* dx);

// ---- loss
// -------------------------------------------------------------------------------------------------
/// Softmax cross-entropy of logits [rows, classes] against labels (-100: skipped). Returns the sum
/// over rows of weight[label] * ((1 - smoothing) * nll + smoothing * mean over classes of nll_c);
/// `count` gets the sum of weight[label] (rows when weights is null). dlogits (may be null, may
/// equal logits) gets the gradient of the sum. Differs: with smoothing and class weights together,
/// torch weighs the smoothed part per class; here it is per-class too: smoothing / classes * sum_c
/// weight[c] * nll_c.
template <class T>
double cross_entropy(const T* logits, const int64_t* labels, const T* weights, double smoothing,
                     int64_t rows, int64_t classes, T* dlogits, double* count);

// ---- optimizer
// --------------------------------------------------------------------------------------------
struct AdamW {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;           // from 1, for the bias correction
  double gradient_scale = 1;  // clip / window count
};
/// One fused pass: g = gradient * gradient_scale; m, v updated; p -= lr * (mhat / (sqrt(vhat) +
/// eps) + decay * p), decoupled as in torch.optim.AdamW (decay first). mask (may be null): elements
/// with 0 are left untouched, moments included. T = float or double. Reference: Loshchilov and
/// Hutter 2019, arXiv 1711.05101, algorithm 2.
template <class T>
void adamw(const AdamW& options, T* p, const T* gradient, T* m, T* v, const uint8_t* mask,
           int64_t count);
/// The same for some rows of a table p [*, cols]: rows[i] takes gradient [n, cols]'s row i.
template <class T>
void adamw_rows(const AdamW& options, const int64_t* rows, int64_t n, const T* gradient, T* p, T* m,
                T* v, int64_t cols);
/// What a step does to numbers without a gradient beside shrinking their moments:
/// p = p keep - rate m / (sqrt(v) root + eps).
struct AdamWRest {
  double keep = 1, rate = 0, root = 1;
};
AdamWRest adamw_rest(const AdamW& options);
/// A row and the first of the steps that it missed. Without moments, which are all zeros then and
/// neither read nor written, it decays alone.
struct MissedRow {
  int64_t row = 0;
  int32_t first = 0;
  bool moments = true;
};
/// Rows of a table p [*, cols] take the steps from their first missed to the last of `count`, one
/// after another, to the bits of adamw with gradients of zero. Of `options` the betas and eps are
/// read. No row occurs twice.
template <class T>
void adamw_missed(const AdamW& options, const AdamWRest* steps, int64_t count,
                  const MissedRow* rows, int64_t n, T* p, T* m, T* v, int64_t cols);

}  // namespace attune::kernels
