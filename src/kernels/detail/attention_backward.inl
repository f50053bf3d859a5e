// Attention backward; included after attention.inl. Scores are transposed as in the forward, so
// that logarithms of sums and row terms are plain vectors.
namespace {

template <class T, class P>
struct AttentionBackward {
  using V = typename P::Vector;
  using E = typename P::Elem;
  using A = acc_t<T>;
  const AttentionShape& shape;
  const AttentionBias<T>& bias;
  const T* q;
  const T* k;
  const T* v;
  const T* out;  // or null
  const A* log_sums;
  const T* dout;
  T* dq;
  T* dk;
  T* dv;

  struct Buffers {
    E *key_rows, *value_rows, *keys, *rows, *qt, *dot, *queries, *gradients, *left, *left_scores;
    A *st, *dpt, *turned, *dk, *dv, *result, *multiplier, *expanded, *bias_sums;
    uint16_t* draws;
    // Of the block's rows: -log2 of the sum of exponentials, and dO . O = P . dP.
    A below[kQueryBlock], terms[kQueryBlock];
    /// `shared`: values are the keys.
    void layout(Arena& arena, const Extent& x, bool shared, bool with_bias, bool with_drop) {
      const int64_t kp = round_up(x.keys, V::kWidth), dp = round_up(x.head_size, V::kWidth);
      const int64_t chunk = smaller(kp, kKeyChunk);
      const int64_t dk_width = round_up((x.head_size + P::kPack - 1) / P::kPack, V::kWidth);
      arena.take(key_rows, kp * dk_width);
      if (shared)
        value_rows = key_rows;
      else
        arena.take(value_rows, kp * dk_width);
      arena.take(keys, inner_steps<P>(x.keys) * dp);
      arena.take(rows, kQueryBlock * dk_width);
      arena.take(qt, dk_width * kQueryBlock);
      arena.take(dot, dk_width * kQueryBlock);
      arena.take(queries, kQueryBlock * dp);
      arena.take(gradients, kQueryBlock * dp);
      arena.take(left,
                 larger(chunk * P::left_stride(kQueryBlock), kQueryBlock * P::left_stride(chunk)));
      arena.take(left_scores, chunk * P::left_stride(kQueryBlock));
      arena.take(st, chunk * kQueryBlock);
      arena.take(dpt, chunk * kQueryBlock);
      arena.take(turned, chunk * kQueryBlock);
      arena.take(this->dk, kp * dp);
      arena.take(dv, kp * dp);
      arena.take(result, kQueryBlock * dp);
      arena.take(multiplier, with_drop ? chunk * kQueryBlock : 0);
      arena.take(draws, with_drop ? draw_area(chunk) : 0);
      arena.take(expanded, with_bias ? x.queries + x.keys + kQueryBlock : 0);
      arena.take(bias_sums, with_bias ? x.queries + x.keys + kQueryBlock : 0);
    }
  };
  /// One block of queries of one head, and the keys it sees or a chunk of them.
  struct Block {
    int64_t b, head, begin, rows, padded;  // padded: rows rounded up to the vector width
    Range keys;
    int64_t key_count, key_padded;
  };

  /// Packs the block's Q and dO in both forms, and its row terms.
  void load_block(const Block& s, Buffers& u) const {
    const int64_t d = shape.head_size, dp = round_up(d, V::kWidth), width = shape.heads * d;
    const int64_t dkw = round_up((d + P::kPack - 1) / P::kPack, V::kWidth);
    const int64_t row = shape.q_offsets[s.b] + s.begin;
    const T* query = q + row * shape.q_stride + s.head * d;
    const T* gradient = dout + row * width + s.head * d;
    const auto pad = [&] {
      __builtin_memset(u.rows + s.rows * dkw, 0,
                       static_cast<size_t>((s.padded - s.rows) * dkw) * sizeof(E));
    };
    P::rows(query, shape.q_stride, s.rows, d, u.rows, dkw);
    pad();
    transpose_blocks<P>(u.rows, s.padded, dkw, u.qt);
    P::rows(gradient, width, s.rows, d, u.rows, dkw);
    pad();
    transpose_blocks<P>(u.rows, s.padded, dkw, u.dot);
    P::inner_rows(query, shape.q_stride, s.rows, d, u.queries, dp);
    P::inner_rows(gradient, width, s.rows, d, u.gradients, dp);
    clear_last_steps<P>(s.rows, dp, u.queries);
    clear_last_steps<P>(s.rows, dp, u.gradients);
    for (int64_t i = 0; i < s.padded; ++i) u.below[i] = u.terms[i] = 0;
    for (int64_t i = 0; i < s.rows; ++i) u.below[i] = -log_sums[(row + i) * shape.heads + s.head];
    if (out == nullptr) return;  // probabilities() adds the terms up
    const T* value = out + row * width + s.head * d;
    for (int64_t i = 0; i < s.rows; ++i) {
      V sum = V::zero();
      for (int64_t c = 0; c < d; c += V::kWidth) {
        const int n = lanes_at(c, d, V::kWidth);
        sum = V::fma(load_lanes<V>(gradient + i * width + c, n),
                     load_lanes<V>(value + i * width + c, n), sum);
      }
      u.terms[i] = V::sum(sum);
    }
  }

  /// Adds the score gradients of key j to the table, by position.
  void add_placed(const Extent& x, const Block& s, V ds, int64_t c, int64_t j) const {
    A values[V::kWidth];
    ds.store(values);
    A* to = bias.gradient + s.head * (2 * bias.reach + 1);
    for (int64_t lane = 0; lane < V::kWidth && s.begin + c + lane < x.queries; ++lane)
      to[bias_slot(bias, x.distance(s.begin + c + lane, j))] += values[lane];
  }

  /// st: scores to probabilities; dpt: what dropout leaves of their gradients. Without `out` all
  /// keys are here, and the row terms are added up.
  void probabilities(const Extent& x, const Block& s, Buffers& u) const {
    const V scale = V::set(shape.scale),
            unit = V::set(bias.table == nullptr ? shape.scale * kLog2e : kLog2e);
    // What a store of numbers could change for all that the compiler knows is asked once.
    const bool placed = bias.table != nullptr && x.positions != nullptr,
               dropped = shape.drop.on(), adds = out == nullptr;
    for (int64_t r = 0; r < s.key_count; ++r) {
      const int64_t j = s.keys.begin + r;
      const Range seen = x.queries_of(j);
      // Lanes past the last query count as unseen: their sums are not probabilities.
      const bool partial = seen.begin > s.begin || seen.end < s.begin + s.padded;
      const A* biases = bias.table == nullptr ? nullptr : u.expanded + s.begin - j + x.keys - 1;
      for (int64_t c = 0; c < s.padded; c += V::kWidth) {
        A* at = u.st + r * s.padded + c;
        A* gradient = u.dpt + r * s.padded + c;
        V score = V::load(at);
        if (biases != nullptr)
          score =
              V::fma(score, scale,
                     placed ? placed_bias<V>(bias, x, s.head, s.begin + c, j) : V::load(biases + c));
        V p = V::exp2(V::fma(score, unit, V::load(u.below + c)));
        if (partial) p = V::select(inside(V::index(), s.begin + c, seen), p, V::zero());
        p.store(at);
        V dp = V::load(gradient);
        if (dropped) {
          dp = dp * V::load(u.multiplier + r * s.padded + c);
          dp.store(gradient);
        }
        if (adds) V::fma(p, dp, V::load(u.terms + c)).store(u.terms + c);
      }
    }
  }

  /// st: probabilities to dropped ones; dpt: their gradients to those of the scores. Row padding
  /// becomes 0.
  void differentiate(const Extent& x, const Block& s, Buffers& u) const {
    const bool placed = bias.table != nullptr && x.positions != nullptr, dropped = shape.drop.on();
    for (int64_t r = 0; r < s.key_count; ++r) {
      const int64_t j = s.keys.begin + r;
      A* sums = bias.gradient == nullptr ? nullptr : u.bias_sums + s.begin - j + x.keys - 1;
      for (int64_t c = 0; c < s.padded; c += V::kWidth) {
        A* at = u.st + r * s.padded + c;
        A* gradient = u.dpt + r * s.padded + c;
        const V p = V::load(at), ds = p * (V::load(gradient) - V::load(u.terms + c));
        ds.store(gradient);
        if (dropped) (p * V::load(u.multiplier + r * s.padded + c)).store(at);
        if (sums == nullptr) continue;
        if (placed) {
          add_placed(x, s, ds, c, j);
        } else {
          (V::load(sums + c) + ds).store(sums + c);
        }
      }
    }
    const size_t rest = static_cast<size_t>((s.key_padded - s.key_count) * s.padded) * sizeof(A);
    __builtin_memset(u.dpt + s.key_count * s.padded, 0, rest);
    if (P::kRowBlock > 1) __builtin_memset(u.st + s.key_count * s.padded, 0, rest);
  }

  /// What one chunk of keys gives to its own gradients, and to dq in `result`.
  void run_chunk(const Extent& x, const Block& s, bool first, Buffers& u) const {
    const int64_t d = shape.head_size, dp = round_up(d, V::kWidth),
                  inner = (d + P::kPack - 1) / P::kPack;
    const int64_t dkw = round_up(inner, V::kWidth), width = s.padded;
    if (shape.drop.on())
      load_factors<V>(shape, s.head, shape.q_offsets[s.b] + s.begin, s.rows, s.padded, s.keys,
                      s.key_padded, u.draws, u.turned, u.multiplier);
    product<P>(s.key_count, width, inner, u.key_rows + s.keys.begin * dkw, dkw, u.qt, width, u.st,
               width, false);
    product<P>(s.key_count, width, inner, u.value_rows + s.keys.begin * dkw, dkw, u.dot, width,
               u.dpt, width, false);
    probabilities(x, s, u);
    differentiate(x, s, u);

    const int64_t pairs = (s.rows + P::kPack - 1) / P::kPack, stride = P::left_stride(width);
    // Whole blocks of rows: those past the last key add zeros to what may be other keys' sums.
    const int64_t keys = P::kRowBlock > 1 ? s.key_padded : s.key_count;
    const E* probabilities = P::left(u.st, keys, width, u.left_scores);
    product<P>(s.key_count, dp, pairs, probabilities, stride, u.gradients, dp,
               u.dv + s.keys.begin * dp, dp, true);
    const E* scores = P::left(u.dpt, keys, width, u.left);
    product<P>(s.key_count, dp, pairs, scores, stride, u.queries, dp, u.dk + s.keys.begin * dp, dp,
               true);

    transpose_blocks<FloatPack<V>>(u.dpt, s.key_padded, width, u.turned);
    const E* turned = P::left(u.turned, s.rows, s.key_padded, u.left);
    product<P>(s.rows, dp, (s.key_count + P::kPack - 1) / P::kPack, turned,
               P::left_stride(s.key_padded), u.keys + s.keys.begin / P::kPack * dp, dp, u.result,
               dp, !first);
  }

  void run_block(const Extent& x, const Block& s, Buffers& u) const {
    const int64_t d = shape.head_size, dp = round_up(d, V::kWidth);
    load_block(s, u);
    int64_t begin = s.keys.begin;
    do {
      run_chunk(x, chunk_of<V>(s, begin), begin == s.keys.begin, u);
      begin += kKeyChunk;
    } while (begin < s.keys.end);
    store(u.result, dp, s.rows, shape.scale,
          dq + (shape.q_offsets[s.b] + s.begin) * shape.heads * d + s.head * d, shape.heads * d);
  }

  void store(const A* from, int64_t from_stride, int64_t rows, double scale, T* to,
             int64_t to_stride) const {
    const V by = V::set(scale);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < shape.head_size; c += V::kWidth)
        store_lanes(V::load(from + r * from_stride + c) * by, to + r * to_stride + c,
                    lanes_at(c, shape.head_size, V::kWidth));
  }

  /// Index w = i - j + keys - 1 runs with the query lanes.
  void begin_bias(const Extent& x, int64_t head, Buffers& u) const {
    const A* table = bias.table + head * (2 * bias.reach + 1);
    for (int64_t w = 0; w < x.queries + x.keys + kQueryBlock; ++w) {
      u.expanded[w] = table[bias_slot(bias, x.keys - 1 - w - x.shift)];
      u.bias_sums[w] = 0;
    }
  }
  void end_bias(const Extent& x, int64_t head, const Buffers& u) const {
    A* gradient = bias.gradient + head * (2 * bias.reach + 1);
    for (int64_t w = 0; w < x.queries + x.keys - 1; ++w)
      gradient[bias_slot(bias, x.keys - 1 - w - x.shift)] += u.bias_sums[w];
  }

  void run_head(const Extent& x, int64_t b, int64_t head, Buffers& u) const {
    if (bias.table != nullptr) begin_bias(x, head, u);
    for (int64_t i0 = 0; i0 < x.queries; i0 += kQueryBlock) {
      Block s{b, head, i0, smaller(kQueryBlock, x.queries - i0), 0, {0, 0}, 0, 0};
      s.padded = round_up(s.rows, V::kWidth);
      s.keys = x.keys_of_block(i0, i0 + s.rows, V::kWidth);
      s.key_count = s.keys.end - s.keys.begin;
      s.key_padded = round_up(s.key_count, V::kWidth);
      run_block(x, s, u);
    }
    if (bias.gradient != nullptr) end_bias(x, head, u);
  }

  void fetch(int64_t b, int64_t kv_head) const {
    const int64_t d = shape.head_size, rows = shape.q_offsets[b + 1] - shape.q_offsets[b];
    const int64_t keys = shape.k_offsets[b + 1] - shape.k_offsets[b], width = shape.heads * d;
    const int64_t head = kv_head * (shape.heads / shape.kv_heads) * d;
    fetch_rows(k + shape.k_offsets[b] * shape.k_stride + kv_head * d, shape.k_stride, keys, d);
    fetch_rows(v + shape.k_offsets[b] * shape.v_stride + kv_head * d, shape.v_stride, keys, d);
    fetch_rows(q + shape.q_offsets[b] * shape.q_stride + head, shape.q_stride, rows, d);
    fetch_rows(dout + shape.q_offsets[b] * width + head, width, rows, d);
    if (out != nullptr) fetch_rows(out + shape.q_offsets[b] * width + head, width, rows, d);
    const int64_t kv_width = shape.kv_heads * d;
    fetch_rows<1>(dq + shape.q_offsets[b] * width + head, width, rows, d);
    fetch_rows<1>(dk + shape.k_offsets[b] * kv_width + kv_head * d, kv_width, keys, d);
    fetch_rows<1>(dv + shape.k_offsets[b] * kv_width + kv_head * d, kv_width, keys, d);
  }

  /// All query heads that share one key-value head.
  void run(int64_t b, int64_t kv_head) const {
    const Extent x(shape, b);
    const bool shared = k == v && dk == dv;
    Buffers u;
    Arena arena;
    u.layout(arena, x, shared, bias.table != nullptr, shape.drop.on());
    arena = {detail::scratch<char>(1, arena.used), 0};
    u.layout(arena, x, shared, bias.table != nullptr, shape.drop.on());

    [[maybe_unused]] const typename P::Session session;
    const int64_t d = shape.head_size, dp = round_up(d, V::kWidth);
    const int64_t dkw = round_up((d + P::kPack - 1) / P::kPack, V::kWidth),
                  first = shape.k_offsets[b];
    const T* key = k + first * shape.k_stride + kv_head * d;
    P::rows(key, shape.k_stride, x.keys, d, u.key_rows, dkw);
    if (!shared)
      P::rows(v + first * shape.v_stride + kv_head * d, shape.v_stride, x.keys, d, u.value_rows,
              dkw);
    P::inner_rows(key, shape.k_stride, x.keys, d, u.keys, dp);
    clear_last_steps<P>(x.keys, dp, u.keys);
    __builtin_memset(u.dk, 0, static_cast<size_t>(x.keys * dp) * sizeof(A));
    __builtin_memset(u.dv, 0, static_cast<size_t>(x.keys * dp) * sizeof(A));
    const int64_t group = shape.heads / shape.kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      run_head(x, b, head, u);
    const int64_t width = shape.kv_heads * d;
    if (shared) {
      // What they get as keys and as values is one gradient.
      const V scale = V::set(shape.scale);
      for (int64_t i = 0; i < x.keys * dp; i += V::kWidth)
        V::fma(V::load(u.dk + i), scale, V::load(u.dv + i)).store(u.dv + i);
    } else {
      store(u.dk, dp, x.keys, shape.scale, dk + first * width + kv_head * d, width);
    }
    store(u.dv, dp, x.keys, 1, dv + first * width + kv_head * d, width);
  }
};

template <class T, class P>
void attention_backward_with(const AttentionBackward<T, P>& task) {
  const int64_t heads = task.shape.kv_heads, sequences = task.shape.sequences;
  if (task.bias.gradient != nullptr) {
    // Sequences share the table's gradient: one thread a head adds them in order.
    detail::share_out(heads, 1, [&](int64_t first, int64_t last) {
      for (int64_t head = first; head < last; ++head)
        for (int64_t b = 0; b < sequences; ++b) task.run(b, head);
    });
    return;
  }
  detail::share_out(sequences * heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      if (t + 1 < last) task.fetch((t + 1) / heads, (t + 1) % heads);
      task.run(t / heads, t % heads);
    }
  });
}

}  // namespace
