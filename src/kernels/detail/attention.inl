// Attention over packed sequences, forward; shared parts of the backward. Included inside
// attune::kernels::<set> after product.inl and philox.inl. One task computes one (sequence, head);
// every output has one writer. Scores are kept transposed: keys are rows, queries are lanes, so
// that no step needs a horizontal sum.
namespace {

// Queries whose scores with kKeyChunk keys are alive at once. Sequences of more keys take them
// chunk by chunk and correct the running sums (Milakov and Gimelshein 2018, "Online normalizer
// calculation for softmax", arXiv 1805.02867), so that the scores stay in the second cache whatever
// the length.
constexpr int64_t kQueryBlock = 64;

// Exponents are in powers of two: what scales a score takes the factor of exp to exp2 with it.
constexpr double kLog2e = 1.4426950408889634;

/// Hands out aligned pieces of one buffer; without a base it only counts.
struct Arena {
  char* base = nullptr;
  int64_t used = 0;
  template <class E>
  void take(E*& piece, int64_t count) {
    piece = base == nullptr ? nullptr : reinterpret_cast<E*>(base + used);
    used = round_up(used + count * static_cast<int64_t>(sizeof(E)), 64);
  }
};

/// Half-open range of positions.
struct Range {
  int64_t begin, end;
};
inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/// Sizes of one sequence and which keys a query sees. Query i stands at key position i + shift.
struct Extent {
  int64_t queries, keys, head_size, shift, window;
  bool causal;
  const int32_t* positions;  // of this sequence's queries, or null

  Extent(const AttentionShape& s, int64_t b)
      : queries(s.q_offsets[b + 1] - s.q_offsets[b]),
        keys(s.k_offsets[b + 1] - s.k_offsets[b]),
        head_size(s.head_size),
        shift(keys - queries),
        window(s.window),
        causal(s.causal),
        positions(s.positions == nullptr ? nullptr : s.positions + s.q_offsets[b]) {}
  /// Position of key j minus that of query i, by `positions`.
  int64_t distance(int64_t i, int64_t j) const {
    const int64_t key = j >= shift ? positions[j - shift] : positions[0] - (shift - j);
    return key - positions[i];
  }
  Range keys_of(int64_t i) const {
    const int64_t at = i + shift;
    int64_t begin = 0, end = keys;
    if (causal) end = smaller(end, at + 1);
    if (window > 0) {
      begin = larger(begin, at - window + 1);
      end = smaller(end, at + window);
    }
    end = larger(end, 0);
    return {smaller(begin, end), end};
  }
  Range queries_of(int64_t j) const {
    int64_t begin = 0, end = queries;
    if (causal) begin = larger(begin, j - shift);
    if (window > 0) {
      begin = larger(begin, j - window + 1 - shift);
      end = smaller(end, j + window - shift);
    }
    end = larger(end, 0);
    return {smaller(begin, end), end};
  }
  /// Keys seen by any of queries [i0, i1), the beginning rounded down to `align`.
  Range keys_of_block(int64_t i0, int64_t i1, int64_t align) const {
    Range range{keys, 0};
    const int64_t ends[2] = {i0, i1 - 1};
    for (const int64_t i : ends) {
      const Range one = keys_of(i);
      if (one.begin < one.end)
        range = {smaller(range.begin, one.begin), larger(range.end, one.end)};
    }
    if (range.begin >= range.end) return {0, 0};
    return {range.begin / align * align, range.end};
  }
};

/// Lanes whose position (first + lane) lies in the range.
template <class V>
typename V::Mask inside(V lanes, int64_t first, Range range) {
  return V::both(V::less(V::set(static_cast<double>(range.begin - first) - 0.5), lanes),
                 V::less(lanes, V::set(static_cast<double>(range.end - first))));
}

/// Draws of query rows [row, row + rows) of a head, dense [rows][8 * blocks] (draw_rows).
inline void draw_queries(const AttentionShape& shape, int64_t head, int64_t row, int64_t rows,
                         int64_t first, int64_t blocks, uint16_t* draws) {
  const auto stream = [](int64_t of) { return static_cast<uint32_t>(of + 1); };
  const int64_t heads = shape.heads_in_rows;
  if (heads == 1) return draw_rows(shape.drop, row, rows, stream(head), first, blocks, draws);
  for (int64_t i = 0; i < rows; ++i)
    draw_rows(shape.drop, (row + i) / heads, 1, stream((row + i) % heads), first, blocks,
              draws + i * blocks * 8);
}

/// Dropout factors of query rows [row, row + rows) and keys [keys.begin, keys.begin + width),
/// transposed: to [width][padded], padded >= rows. `work` has room for padded * width values,
/// `draws` for draw_area().
template <class V>
void load_factors(const AttentionShape& shape, int64_t head, int64_t row, int64_t rows,
                  int64_t padded, Range keys, int64_t width, uint16_t* draws,
                  typename V::Scalar* work, typename V::Scalar* to) {
  const V by = V::set(drop_scale(shape.drop));
  const uint32_t threshold = drop_threshold(shape.drop);
  const int64_t first = keys.begin / 8, blocks = (keys.begin + width + 7) / 8 - first;
  draw_queries(shape, head, row, rows, first, blocks, draws);
  for (int64_t i = 0; i < padded; ++i) {
    const uint16_t* from = draws + (i < rows ? i : 0) * blocks * 8 + keys.begin % 8;
    for (int64_t c = 0; c < width; c += V::kWidth)
      V::keep(from + c, threshold, by).store(work + i * width + c);
  }
  transpose_blocks<FloatPack<V>>(work, padded, width, to);
}
inline int64_t draw_area(int64_t padded_keys) {
  return kQueryBlock * (padded_keys + 16) + 128;
}

/// Asks for `cols` elements of each row. One head's piece of a row is a line or two at a large
/// stride, which hardware prefetchers do not follow: the next task's pieces are requested while
/// this one computes.
template <int Write = 0, class T>
void fetch_rows(const T* x, int64_t stride, int64_t rows, int64_t cols) {
  const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t r = 0; r < smaller(rows, kQueryBlock); ++r)
    for (int64_t c = 0; c < cols; c += line) __builtin_prefetch(x + r * stride + c, Write);
}

/// Right operands whose inner dimension is `count` rows: the steps they take in memory, and zeros
/// in the last block, which a left operand of any first step may reach.
template <class P>
int64_t inner_steps(int64_t count) {
  return (count + P::kPack - 1) / P::kPack + (P::kInnerBlock > 1 ? P::kInnerBlock : 0);
}
template <class P>
void clear_last_steps(int64_t count, int64_t width, typename P::Elem* to) {
  const int64_t used = (count + P::kPack - 1) / P::kPack;
  __builtin_memset(
      to + used * width, 0,
      static_cast<size_t>((inner_steps<P>(count) - used) * width) * sizeof(typename P::Elem));
}

/// The keys of a block of queries from `begin` on, as many as are taken at once.
template <class V, class Block>
Block chunk_of(const Block& block, int64_t begin) {
  Block chunk = block;
  chunk.keys = {begin, smaller(block.keys.end, begin + kKeyChunk)};
  chunk.key_count = chunk.keys.end - chunk.keys.begin;
  chunk.key_padded = round_up(chunk.key_count, V::kWidth);
  return chunk;
}

template <class T>
int64_t bias_slot(const AttentionBias<T>& bias, int64_t distance) {
  return smaller(larger(distance, -bias.reach), bias.reach) + bias.reach;
}

/// Biases of key j for the queries i, i + 1, ... of one vector, by their positions.
template <class V, class T>
V placed_bias(const AttentionBias<T>& bias, const Extent& x, int64_t head, int64_t i, int64_t j) {
  const acc_t<T>* table = bias.table + head * (2 * bias.reach + 1);
  acc_t<T> values[V::kWidth];
  for (int64_t lane = 0; lane < V::kWidth; ++lane)
    values[lane] =
        i + lane < x.queries ? table[bias_slot(bias, x.distance(i + lane, j))] : acc_t<T>(0);
  return V::load(values);
}

template <class T, class P>
struct AttentionForward {
  using V = typename P::Vector;
  using E = typename P::Elem;
  using A = acc_t<T>;
  const AttentionShape& shape;
  const AttentionBias<T>& bias;
  const T* q;
  const T* k;
  const T* v;
  T* out;
  A* log_sums;

  struct Buffers {
    E *keys, *values, *rows, *qt, *left;
    A *st, *turned, *result, *factors, *expanded;
    uint16_t* draws;
    // Of the block's rows: the largest exponent so far, the sum, what the last chunk multiplies
    // earlier results by; in the end 1 / sum and log2 of it all.
    A top[kQueryBlock], sums[kQueryBlock], by[kQueryBlock], rest[kQueryBlock];
    void layout(Arena& arena, const Extent& x, bool with_bias, bool with_drop) {
      const int64_t kp = round_up(x.keys, V::kWidth), dp = round_up(x.head_size, V::kWidth);
      const int64_t chunk = smaller(kp, kKeyChunk);
      const int64_t dk = round_up((x.head_size + P::kPack - 1) / P::kPack, V::kWidth);
      arena.take(keys, kp * dk);
      arena.take(values, inner_steps<P>(x.keys) * dp);
      arena.take(rows, kQueryBlock * dk);
      arena.take(qt, kQueryBlock * dk);
      arena.take(left, kQueryBlock * P::left_stride(chunk));
      arena.take(st, kQueryBlock * chunk);
      arena.take(turned, kQueryBlock * chunk);
      arena.take(result, kQueryBlock * dp);
      arena.take(factors, with_drop ? kQueryBlock * chunk : 0);
      arena.take(draws, with_drop ? draw_area(chunk) : 0);
      arena.take(expanded, with_bias ? x.queries + x.keys + kQueryBlock : 0);
    }
  };
  /// One block of queries, and the keys it sees or a chunk of them.
  struct Block {
    int64_t begin, rows, padded;  // padded: rows rounded up to the vector width
    Range keys;
    int64_t key_count, key_padded;
  };

  /// Index w = i - j + keys - 1 runs with the query lanes.
  void expand_bias(const Extent& x, int64_t head, A* to) const {
    const A* table = bias.table + head * (2 * bias.reach + 1);
    for (int64_t w = 0; w < x.queries + x.keys + kQueryBlock; ++w)
      to[w] = table[bias_slot(bias, x.keys - 1 - w - x.shift)];
  }

  /// Are finished scores scaled? Without a bias that is left to unit().
  bool scaled() const { return bias.table != nullptr || shape.scale <= 0; }
  /// What a finished score is multiplied by to be an exponent of two.
  double unit() const { return scaled() ? kLog2e : shape.scale * kLog2e; }

  /// Biased, masked scores in place; returns their largest, lane by lane.
  V finish_scores(const Extent& x, const Block& s, const Buffers& u, int64_t head,
                  int64_t c) const {
    const V scale = V::set(shape.scale), none = V::set(-__builtin_inf());
    const bool masked = x.causal || x.window > 0, scales = scaled();
    V best = none;
    for (int64_t r = 0; r < s.key_count; ++r) {
      const int64_t j = s.keys.begin + r;
      A* at = u.st + r * s.padded + c;
      V score = V::load(at);
      if (scales) score = score * scale;
      if (bias.table != nullptr)
        score =
            score + (x.positions != nullptr ? placed_bias<V>(bias, x, head, s.begin + c, j)
                                            : V::load(u.expanded + s.begin + c - j + x.keys - 1));
      if (masked) score = V::select(inside(V::index(), s.begin + c, x.queries_of(j)), score, none);
      if (scales || masked) score.store(at);
      best = V::max(best, score);
    }
    return best;
  }

  /// A row that sees no key has no largest score: 0 makes its terms exp(-inf) = 0.
  static V finite(V top) { return V::select(V::less(V::set(-3e38), top), top, V::zero()); }

  /// st: a chunk's scores to unnormalised probabilities, dropout applied; brings top and sums up to
  /// date, and says in `by` what earlier chunks' results are worth now.
  void softmax(const Extent& x, const Block& s, Buffers& u, int64_t head, bool first) const {
    const bool dropped = shape.drop.on();
    const V by_unit = V::set(unit());
    for (int64_t c = 0; c < s.padded; c += V::kWidth) {
      V best = finish_scores(x, s, u, head, c) * by_unit;
      if (!first) best = V::max(best, V::load(u.top + c));
      const V top = finite(best), below = V::zero() - top;
      V sum = V::zero();
      for (int64_t r = 0; r < s.key_count; ++r) {
        A* at = u.st + r * s.padded + c;
        V e = V::exp2(V::fma(V::load(at), by_unit, below));
        sum = sum + e;
        if (dropped) e = e * V::load(u.factors + r * s.padded + c);
        e.store(at);
      }
      if (!first) {
        const V by = V::exp2(V::load(u.top + c) - top);
        sum = V::fma(V::load(u.sums + c), by, sum);
        by.store(u.by + c);
      }
      best.store(u.top + c);
      sum.store(u.sums + c);
    }
    const int64_t pad = s.key_padded - s.key_count;
    __builtin_memset(u.st + s.key_count * s.padded, 0,
                     static_cast<size_t>(pad * s.padded) * sizeof(A));
  }

  void rescale(const Block& s, int64_t width, Buffers& u) const {
    for (int64_t i = 0; i < s.rows; ++i) {
      const V by = V::splat(u.by[i]);
      for (int64_t c = 0; c < width; c += V::kWidth) {
        A* at = u.result + i * width + c;
        (V::load(at) * by).store(at);
      }
    }
  }

  /// Sums to rest and log2 of the sum of exponentials.
  void finish_sums(const Block& s, Buffers& u) const {
    for (int64_t c = 0; c < s.padded; c += V::kWidth) {
      const V sum = V::load(u.sums + c);
      V::fma(V::log(sum), V::set(kLog2e), finite(V::load(u.top + c))).store(u.sums + c);
      V::select(V::less(sum, V::set(1e-30)), V::zero(), V::set(1) / sum).store(u.rest + c);
    }
  }

  void store_block(int64_t row, int64_t head, const Block& s, const Buffers& u) const {
    const int64_t d = shape.head_size, dp = round_up(d, V::kWidth), width = shape.heads * d;
    for (int64_t i = 0; i < s.rows; ++i) {
      const V rest = V::splat(u.rest[i]);
      T* to = out + (row + i) * width + head * d;
      for (int64_t c = 0; c < d; c += V::kWidth)
        store_lanes(V::load(u.result + i * dp + c) * rest, to + c, lanes_at(c, d, V::kWidth));
      log_sums[(row + i) * shape.heads + head] = u.sums[i];
    }
  }

  void run_block(const Extent& x, const Block& s, int64_t row, int64_t head, Buffers& u) const {
    const int64_t d = shape.head_size, inner = (d + P::kPack - 1) / P::kPack,
                  dp = round_up(d, V::kWidth);
    const int64_t dk = round_up(inner, V::kWidth);
    P::rows(q + row * shape.q_stride + head * d, shape.q_stride, s.rows, d, u.rows, dk);
    __builtin_memset(u.rows + s.rows * dk, 0,
                     static_cast<size_t>((s.padded - s.rows) * dk) * sizeof(E));
    transpose_blocks<P>(u.rows, s.padded, dk, u.qt);
    int64_t begin = s.keys.begin;
    do {
      const bool first = begin == s.keys.begin;
      const Block chunk = chunk_of<V>(s, begin);
      product<P>(chunk.key_count, s.padded, inner, u.keys + begin * dk, dk, u.qt, s.padded, u.st,
                 s.padded, false);
      if (shape.drop.on())
        load_factors<V>(shape, head, row, s.rows, s.padded, chunk.keys, chunk.key_padded, u.draws,
                        u.turned, u.factors);
      softmax(x, chunk, u, head, first);
      if (!first) rescale(s, dp, u);
      transpose_blocks<FloatPack<V>>(u.st, chunk.key_padded, s.padded, u.turned);
      const E* left = P::left(u.turned, s.rows, chunk.key_padded, u.left);
      product<P>(s.rows, dp, (chunk.key_count + P::kPack - 1) / P::kPack, left,
                 P::left_stride(chunk.key_padded), u.values + begin / P::kPack * dp, dp, u.result,
                 dp, !first);
      begin += kKeyChunk;
    } while (begin < s.keys.end);
    finish_sums(s, u);
    store_block(row, head, s, u);
  }

  void fetch(int64_t b, int64_t head) const {
    const int64_t d = shape.head_size, rows = shape.q_offsets[b + 1] - shape.q_offsets[b];
    const int64_t keys = shape.k_offsets[b + 1] - shape.k_offsets[b],
                  kv = head / (shape.heads / shape.kv_heads) * d;
    fetch_rows(k + shape.k_offsets[b] * shape.k_stride + kv, shape.k_stride, keys, d);
    fetch_rows(q + shape.q_offsets[b] * shape.q_stride + head * d, shape.q_stride, rows, d);
    fetch_rows(v + shape.k_offsets[b] * shape.v_stride + kv, shape.v_stride, keys, d);
    const int64_t width = shape.heads * d;
    fetch_rows<1>(out + shape.q_offsets[b] * width + head * d, width, rows, d);
  }

  void run(int64_t b, int64_t head) const {
    const Extent x(shape, b);
    if (x.queries == 0) return;
    Buffers u;
    Arena arena;
    u.layout(arena, x, bias.table != nullptr, shape.drop.on());
    arena = {detail::scratch<char>(1, arena.used), 0};
    u.layout(arena, x, bias.table != nullptr, shape.drop.on());

    [[maybe_unused]] const typename P::Session session;
    const int64_t d = shape.head_size, kv_head = head / (shape.heads / shape.kv_heads),
                  first = shape.k_offsets[b];
    P::rows(k + first * shape.k_stride + kv_head * d, shape.k_stride, x.keys, d, u.keys,
            round_up((d + P::kPack - 1) / P::kPack, V::kWidth));
    P::inner_rows(v + first * shape.v_stride + kv_head * d, shape.v_stride, x.keys, d, u.values,
                  round_up(d, V::kWidth));
    clear_last_steps<P>(x.keys, round_up(d, V::kWidth), u.values);
    if (bias.table != nullptr) expand_bias(x, head, u.expanded);
    for (int64_t i0 = 0; i0 < x.queries; i0 += kQueryBlock) {
      Block s{i0, smaller(kQueryBlock, x.queries - i0), 0, {0, 0}, 0, 0};
      s.padded = round_up(s.rows, V::kWidth);
      s.keys = x.keys_of_block(i0, i0 + s.rows, V::kWidth);
      s.key_count = s.keys.end - s.keys.begin;
      s.key_padded = round_up(s.key_count, V::kWidth);
      run_block(x, s, shape.q_offsets[b] + i0, head, u);
    }
  }
};

template <class T, class P>
void attention_forward_with(const AttentionForward<T, P>& task) {
  const int64_t tasks = task.shape.sequences * task.shape.heads;
  detail::share_out(tasks, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      if (t + 1 < last) task.fetch((t + 1) / task.shape.heads, (t + 1) % task.shape.heads);
      task.run(t / task.shape.heads, t % task.shape.heads);
    }
  });
}

}  // namespace
