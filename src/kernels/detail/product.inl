// Small dense products for attention; included inside attune::kernels::<set> after the vector type.
// A product step reads one packed element of A (broadcast) and a vector of packed elements of B.
// Packed means one value (FloatPack) or a pair along the inner dimension (Bf16Pack, where the CPU
// multiplies bf16 pairs).
namespace {

inline int64_t round_up(int64_t x, int64_t to) {
  return (x + to - 1) / to * to;
}

/// Plain values in acc_t.
template <class V>
struct FloatPack {
  using Vector = V;
  using Elem = typename V::Scalar;
  static constexpr int kPack = 1;
  /// Products take rows of A and steps of the inner dimension in blocks of so many: what pads them
  /// must be there, in memory, and along the inner dimension zero.
  static constexpr int64_t kRowBlock = 1, kInnerBlock = 1;
  /// Lives while a thread multiplies.
  struct Session {};
  using Operand = V;
  static V broadcast(const Elem* a) { return V::splat(*a); }
  static V operand(const Elem* b) { return V::load(b); }
  static V step(V a, V b, V c) { return V::fma(a, b, c); }
  /// rows x cols of X into [rows][width] elements, zero padded (width: round_up of cols).
  template <class T>
  static void rows(const T* x, int64_t stride, int64_t rows, int64_t cols, Elem* to,
                   int64_t width) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < width; c += V::kWidth) {
        const int64_t left = cols - c;
        const V value = left >= V::kWidth ? V::load(x + r * stride + c)
                        : left > 0        ? V::load(x + r * stride + c, static_cast<int>(left))
                                          : V::zero();
        value.store(to + r * width + c);
      }
  }
  /// X as a right operand whose inner dimension is its rows.
  template <class T>
  static void inner_rows(const T* x, int64_t stride, int64_t count, int64_t cols, Elem* to,
                         int64_t width) {
    rows(x, stride, count, cols, to, width);
  }
  /// Values already in acc_t, [rows][width], as a left operand of stride left_stride(width): no
  /// copy.
  static const Elem* left(const Elem* x, int64_t, int64_t, Elem*) { return x; }
  static int64_t left_stride(int64_t width) { return width; }
};

/// Copies the transpose of [rows][cols] elements into [cols][rows]; both counts are multiples of
/// the vector width.
template <class P>
void transpose_blocks(const typename P::Elem* from, int64_t rows, int64_t cols,
                      typename P::Elem* to) {
  using V = typename P::Vector;
  using S = typename V::Scalar;
  for (int64_t r = 0; r < rows; r += V::kWidth)
    for (int64_t c = 0; c < cols; c += V::kWidth)
      V::transpose(reinterpret_cast<const S*>(from + r * cols + c), cols,
                   reinterpret_cast<S*>(to + c * rows + r), rows);
}

template <class P, int Rows, int Cols>
void tile(const typename P::Elem* a, int64_t lda, const typename P::Elem* b, int64_t ldb,
          int64_t inner, typename P::Vector::Scalar* c, int64_t ldc, bool add) {
  using V = typename P::Vector;
  V sum[Rows][Cols];
  // Unrolled here and not left to the optimiser: a loop over `sum` that survives keeps the sums in
  // memory.
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) sum[r][j] = V::zero();
  for (int64_t p = 0; p < inner; ++p) {
    typename P::Operand right[Cols];
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) right[j] = P::operand(b + p * ldb + j * V::kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const typename P::Operand left = P::broadcast(a + r * lda + p);
#pragma GCC unroll 4
      for (int j = 0; j < Cols; ++j) sum[r][j] = P::step(left, right[j], sum[r][j]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) {
      typename V::Scalar* to = c + r * ldc + j * V::kWidth;
      (add ? V::load(to) + sum[r][j] : sum[r][j]).store(to);
    }
}

template <class P, int Cols, int Rows>
void tile_rows(int64_t rows, const typename P::Elem* a, int64_t lda, const typename P::Elem* b,
               int64_t ldb, int64_t inner, typename P::Vector::Scalar* c, int64_t ldc, bool add) {
  if (rows == Rows) return tile<P, Rows, Cols>(a, lda, b, ldb, inner, c, ldc, add);
  if constexpr (Rows > 1) tile_rows<P, Cols, Rows - 1>(rows, a, lda, b, ldb, inner, c, ldc, add);
}

/// Rows of one tile for a panel of `cols` vectors: enough independent sums to hide the latency of a
/// step.
template <class V>
constexpr int tile_rows_for(int cols) {
  return cols == 4 ? V::kTileRows : cols == 2 ? V::kPairRows : V::kSingleRows;
}

template <class P, int Cols>
void panel(int64_t rows, const typename P::Elem* a, int64_t lda, const typename P::Elem* b,
           int64_t ldb, int64_t inner, typename P::Vector::Scalar* c, int64_t ldc, bool add) {
  constexpr int kRows = tile_rows_for<typename P::Vector>(Cols);
  // Even shares: a last tile of one row would run at the latency of its single sum.
  const int64_t tiles = (rows + kRows - 1) / kRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t r = rows * t / tiles, share = rows * (t + 1) / tiles - r;
    tile_rows<P, Cols, kRows>(share, a + r * lda, lda, b, ldb, inner, c + r * ldc, ldc, add);
  }
}

/// c [rows][width] (+)= a [rows][inner] b [inner][width]; inner counts packed elements, width is a
/// multiple of the vector width. The order of additions to one element depends on `inner` only.
template <class P>
void product(int64_t rows, int64_t width, int64_t inner, const typename P::Elem* a, int64_t lda,
             const typename P::Elem* b, int64_t ldb, typename P::Vector::Scalar* c, int64_t ldc,
             bool add) {
  using V = typename P::Vector;
  int64_t w = 0;
  if constexpr (V::kTileCols == 4)
    for (; w + V::kTileCols * V::kWidth <= width; w += V::kTileCols * V::kWidth)
      panel<P, 4>(rows, a, lda, b + w, ldb, inner, c + w, ldc, add);
  for (; w + 2 * V::kWidth <= width; w += 2 * V::kWidth)
    panel<P, 2>(rows, a, lda, b + w, ldb, inner, c + w, ldc, add);
  for (; w < width; w += V::kWidth) panel<P, 1>(rows, a, lda, b + w, ldb, inner, c + w, ldc, add);
}

}  // namespace
