// Products with one narrow side (the side-cars of LoRA and its kin); included inside
// attune::kernels::<set> after product.inl and after pack_for<T>, the set's packing of operands. No
// result depends on the thread count.
namespace {

constexpr int64_t kSideRows = 16;    // rows between inner values and their use
constexpr int64_t kSideDepth = 256;  // rows of a strip that a gradient packs at once

/// The first n of sums that lie one after another.
template <class V, class T>
void store_lanes_of(const typename V::Scalar* sums, T* to, int n) {
  store_lanes(load_lanes<V>(sums, n), to, n);
}

/// Packed elements that hold `count` values along the inner dimension.
template <class P>
constexpr int64_t packed_count(int64_t count) {
  return (count + P::kPack - 1) / P::kPack;
}

/// sums [Rows][kWidth / Rows] = x w^T over packed rows of `depth` elements, in vectors along the
/// inner dimension.
template <class P, int Rows>
void dots(const typename P::Elem* x, const typename P::Elem* w, int64_t depth,
          typename P::Vector::Scalar* sums) {
  using V = typename P::Vector;
  constexpr int kRanks = V::kWidth / Rows;
  V sum[V::kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < V::kWidth; ++i) sum[i] = V::zero();
  for (int64_t p = 0; p < depth; p += V::kWidth) {
    typename P::Operand left[Rows];
#pragma GCC unroll 2
    for (int r = 0; r < Rows; ++r) left[r] = P::operand(x + r * depth + p);
#pragma GCC unroll 8
    for (int j = 0; j < kRanks; ++j) {
      const typename P::Operand right = P::operand(w + j * depth + p);
#pragma GCC unroll 2
      for (int r = 0; r < Rows; ++r)
        sum[r * kRanks + j] = P::step(left[r], right, sum[r * kRanks + j]);
    }
  }
  V::sums(sum).store(sums);
}

/// y [Rows][cols] += a b, columns in whole vectors but for the last. The left operands stay in
/// registers.
template <class T, class P, int Rows, int Inner>
void add_rows(const typename P::Elem* a, int64_t lda, const typename P::Elem* b, int64_t ldb,
              int64_t cols, T* y, int64_t ldy) {
  using V = typename P::Vector;
  typename P::Operand left[Rows][Inner];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
    for (int p = 0; p < Inner; ++p) left[r][p] = P::broadcast(a + r * lda + p);
  for (int64_t c = 0; c < cols; c += V::kWidth) {
    const int n = lanes_at(c, cols, V::kWidth);
    V sum[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sum[r] = load_lanes<V>(y + r * ldy + c, n);
#pragma GCC unroll 16
    for (int p = 0; p < Inner; ++p) {
      const typename P::Operand right = P::operand(b + p * ldb + c);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) sum[r] = P::step(left[r][p], right, sum[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) store_lanes(sum[r], y + r * ldy + c, n);
  }
}

/// The same for any inner size.
template <class T, class P, int Rows>
void add_rows(const typename P::Elem* a, int64_t lda, const typename P::Elem* b, int64_t ldb,
              int64_t inner, int64_t cols, T* y, int64_t ldy) {
  using V = typename P::Vector;
  if constexpr (Rows * 4 * V::kWidth <= 256)
    if (inner == 4) return add_rows<T, P, Rows, 4>(a, lda, b, ldb, cols, y, ldy);
  for (int64_t c = 0; c < cols; c += V::kWidth) {
    const int n = lanes_at(c, cols, V::kWidth);
    V sum[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sum[r] = load_lanes<V>(y + r * ldy + c, n);
    for (int64_t p = 0; p < inner; ++p) {
      const typename P::Operand right = P::operand(b + p * ldb + c);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) sum[r] = P::step(P::broadcast(a + r * lda + p), right, sum[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) store_lanes(sum[r], y + r * ldy + c, n);
  }
}

/// A target with its right operand packed: [pairs][wide].
template <class T, class P>
struct PackedTarget {
  using E = typename P::Elem;
  int64_t pairs, wide;
  const E* second;

  /// y += inner second for `count` rows from `begin` on; `left` has room for kSideRows packed rows.
  void add(const LowRankTarget<T>& to, int64_t begin, int64_t count, E* left) const {
    const Columns<const T>& from = to.inner;
    const int64_t narrow = round_up(pairs, P::Vector::kWidth);
    P::rows(from.data + begin * from.width + from.first, from.width, count, from.rank, left,
            narrow);
    T* y = to.y + begin * to.n;
    int64_t r = 0;
    for (; r + 4 <= count; r += 4)
      add_rows<T, P, 4>(left + r * narrow, narrow, second, wide, pairs, to.n, y + r * to.n, to.n);
    for (; r < count; ++r)
      add_rows<T, P, 1>(left + r * narrow, narrow, second, wide, pairs, to.n, y + r * to.n, to.n);
  }
};

template <class T, class P>
struct LowRankPass {
  using V = typename P::Vector;
  using E = typename P::Elem;
  using A = typename V::Scalar;
  static constexpr int kTogether = V::kWidth == 16 ? 2 : 1;  // rows of one call of dots()
  static constexpr int kRanks = V::kWidth / kTogether;
  int64_t k;
  const T* x;
  const Columns<T>& inner;
  // Packed: rows of x and of `first` are `depth` elements.
  int64_t depth;
  const E* first;

  void make_inner(const E* left, int64_t begin, int64_t count) const {
    for (int64_t r = 0; r < count; r += kTogether)
      for (int64_t j = 0; j < inner.rank; j += kRanks) {
        A sums[V::kWidth];
        dots<P, kTogether>(left + r * depth, first + j * depth, depth, sums);
        for (int64_t i = 0; i < kTogether && r + i < count; ++i)
          store_lanes_of<V>(sums + i * kRanks,
                            inner.data + (begin + r + i) * inner.width + inner.first + j,
                            lanes_at(j, inner.rank, kRanks));
      }
  }
  void block(int64_t begin, int64_t count, const LowRankTarget<T>* targets,
             const PackedTarget<T, P>* packed, int many, int64_t narrow) const {
    E* left = detail::scratch<E>(1, kSideRows * (depth + narrow));
    P::rows(x + begin * k, k, count, k, left, depth);
    make_inner(left, begin, count);
    for (int i = 0; i < many; ++i)
      packed[i].add(targets[i], begin, count, left + kSideRows * depth);
  }
};

}  // namespace

template <class T>
void low_rank_pass(const T* x, const T* in, int64_t rows, int64_t k, const Columns<T>& inner,
                   const LowRankTarget<T>* targets, int count) {
  using P = pack_for<T>;
  using V = typename P::Vector;
  using E = typename P::Elem;
  using Pass = LowRankPass<T, P>;
  const int64_t depth = round_up(packed_count<P>(k), V::kWidth),
                ranks = round_up(inner.rank, Pass::kRanks);
  int64_t room = ranks * depth, narrow = 0;
  PackedTarget<T, P>* packed = detail::scratch<PackedTarget<T, P>>(2, count);
  for (int i = 0; i < count; ++i) {
    packed[i].pairs = packed_count<P>(targets[i].inner.rank);
    packed[i].wide = round_up(targets[i].n, V::kWidth);
    room += packed[i].pairs * packed[i].wide;
    const int64_t own = round_up(packed[i].pairs, V::kWidth);
    narrow = own > narrow ? own : narrow;
  }
  E* first = detail::scratch<E>(0, room);
  P::rows(in, k, inner.rank, k, first, depth);
  for (int64_t i = inner.rank * depth; i < ranks * depth; ++i) first[i] = 0;
  E* second = first + ranks * depth;
  for (int i = 0; i < count; ++i) {
    const LowRankTarget<T>& target = targets[i];
    P::inner_rows(target.out, target.n, target.inner.rank, target.n, second, packed[i].wide);
    packed[i].second = second;
    second += packed[i].pairs * packed[i].wide;
  }
  const Pass pass{k, x, inner, depth, first};
  const int64_t blocks = (rows + kSideRows - 1) / kSideRows;
  detail::share_out(blocks, detail::rows_a_piece(k * kSideRows), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      pass.block(b * kSideRows, rows - b * kSideRows < kSideRows ? rows - b * kSideRows : kSideRows,
                 targets, packed, count, narrow);
  });
}

namespace {

/// One strip of columns of a gradient, [rank][width] sums to [rank, cols] or [cols, rank].
template <class T, class P>
void store_gradient(const acc_t<T>* sums, acc_t<T>* turned, int64_t width, int64_t c0,
                    int64_t count, int64_t cols, int64_t rank, double scale, bool transposed,
                    acc_t<T>* g) {
  using V = typename P::Vector;
  const V by = V::set(scale);
  if (!transposed) {
    for (int64_t j = 0; j < rank; ++j)
      for (int64_t c = 0; c < count; c += V::kWidth)
        store_lanes(V::load(sums + j * width + c) * by, g + j * cols + c0 + c,
                    lanes_at(c, count, V::kWidth));
    return;
  }
  const int64_t lanes = round_up(rank, V::kWidth);
  transpose_blocks<FloatPack<V>>(sums, lanes, width, turned);
  for (int64_t c = 0; c < count; ++c)
    for (int64_t j = 0; j < rank; j += V::kWidth)
      store_lanes(V::load(turned + c * lanes + j) * by, g + (c0 + c) * rank + j,
                  lanes_at(j, rank, V::kWidth));
}

}  // namespace

template <class T>
void low_rank_gradient(const Columns<const T>& inner, const T* x, int64_t rows, int64_t cols,
                       double scale, bool transposed, acc_t<T>* g) {
  using P = pack_for<T>;
  using V = typename P::Vector;
  using E = typename P::Elem;
  constexpr int64_t kStrip = 4 * V::kWidth;
  const int64_t rank = inner.rank, lanes = round_up(rank, V::kWidth);
  const int64_t pairs = packed_count<P>(rows), depth = round_up(pairs, V::kWidth);
  E* by_row = detail::scratch<E>(0, 2 * depth * lanes);
  E* left = by_row + depth * lanes;  // inner^T, [lanes][depth]
  P::inner_rows(inner.data + inner.first, inner.width, rows, rank, by_row, lanes);
  for (int64_t i = pairs * lanes; i < depth * lanes; ++i) by_row[i] = 0;
  transpose_blocks<P>(by_row, depth, lanes, left);
  const int64_t strips = (cols + kStrip - 1) / kStrip;
  detail::share_out_each(strips, rows * cols > 16384 ? 1 : strips, [&](int64_t s) {
    const int64_t c0 = s * kStrip, count = cols - c0 < kStrip ? cols - c0 : kStrip;
    E* right = detail::scratch<E>(1, kSideDepth * kStrip + 2 * lanes * kStrip);
    acc_t<T>* sums = reinterpret_cast<acc_t<T>*>(right + kSideDepth * kStrip);
    for (int64_t i = 0; i < lanes * kStrip; ++i) sums[i] = 0;
    for (int64_t r = 0; r < rows; r += kSideDepth) {
      const int64_t part = rows - r < kSideDepth ? rows - r : kSideDepth;
      P::inner_rows(x + r * cols + c0, cols, part, count, right, kStrip);
      product<P>(rank, kStrip, packed_count<P>(part), left + r / P::kPack, depth, right, kStrip,
                 sums, kStrip, true);
    }
    store_gradient<T, P>(sums, sums + lanes * kStrip, kStrip, c0, count, cols, rank, scale,
                         transposed, g);
  });
}

template <class T>
void low_rank_turn(const acc_t<T>* up, int64_t n, int64_t rank, double scale, T* w) {
  using V = vec_for<T>;
  const int64_t lanes = round_up(rank, V::kWidth);
  acc_t<T>* rows = detail::scratch<acc_t<T>>(0, 2 * lanes * V::kWidth);
  acc_t<T>* turned = rows + lanes * V::kWidth;
  const V by = V::set(scale);
  for (int64_t c = 0; c < n; c += V::kWidth) {
    const int count = lanes_at(c, n, V::kWidth);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < lanes; j += V::kWidth)
        (load_lanes<V>(up + (c + i) * rank + j, lanes_at(j, rank, V::kWidth)) * by)
            .store(rows + i * lanes + j);
    transpose_blocks<FloatPack<V>>(rows, V::kWidth, lanes, turned);
    for (int64_t j = 0; j < rank; ++j)
      store_lanes(V::load(turned + j * V::kWidth), w + j * n + c, count);
  }
}
