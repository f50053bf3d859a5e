// Layer and RMS normalisation; included inside attune::kernels::<set> after lanes.inl and
// philox.inl.
namespace {

template <class T>
struct NormRow {
  using V = vec_for<T>;
  using A = acc_t<T>;
  NormKind kind;
  int64_t cols;
  double eps;

  /// h = dropout(x) + residual into h (T) and wide (A).
  void join(const T* x, const T* residual, const uint16_t* draws, uint32_t threshold, V scale, T* h,
            A* wide) const {
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const int n = lanes_at(c, cols, V::kWidth);
      V value = load_lanes<V>(x + c, n);
      if (draws != nullptr) value = V::keep(draws + c, threshold, value * scale);
      if (residual != nullptr) value = value + load_lanes<V>(residual + c, n);
      if (h != nullptr) {
        store_lanes(value, h + c, n);
        value = load_lanes<V>(h + c, n);  // the backward sees h as stored: so must the forward
      }
      value.store(wide + c);
    }
  }
  /// Mean and 1 / sqrt(variance + eps), two passes.
  void statistics(const A* wide, A* mean, A* rstd) const {
    V sum = V::zero(), squares = V::zero();
    A centre = 0;
    if (kind == NormKind::Layer) {
      for (int64_t c = 0; c < cols; c += V::kWidth)
        sum = sum + only(V::load(wide + c), lanes_at(c, cols, V::kWidth));
      centre = V::sum(sum) / static_cast<A>(cols);
    }
    const V middle = V::set(centre);
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const V d = only(V::load(wide + c) - middle, lanes_at(c, cols, V::kWidth));
      squares = V::fma(d, d, squares);
    }
    const V variance = V::set(V::sum(squares) / static_cast<A>(cols) + static_cast<A>(eps));
    A root[V::kWidth];
    (V::set(1) / V::sqrt(variance)).store(root);
    *mean = centre;
    *rstd = root[0];
  }
};

constexpr int64_t kNormChunk =
    64;  // most chunks of rows whose parameter gradients are summed apart

/// Rows a chunk: depends on the row count only, so that sums do not depend on threads.
inline int64_t norm_chunk_rows(int64_t rows) {
  const int64_t spread = (rows + kNormChunk - 1) / kNormChunk;
  return spread < 16 ? 16 : spread;
}

template <class T>
struct NormBackward {
  using V = vec_for<T>;
  using A = acc_t<T>;
  NormKind kind;
  const A* gamma;
  const T* dh_extra;
  int64_t cols;
  uint32_t threshold;
  V scale;

  /// One row. dgamma, dbeta: this chunk's partial sums (may be null).
  void row(const T* dy, const T* extra, const T* h, A mean, A rstd, const uint16_t* draws, T* dh,
           T* dx, A* dgamma, A* dbeta) const {
    const V m = V::set(kind == NormKind::Layer ? mean : 0), r = V::set(rstd);
    V sum_g = V::zero(), sum_gx = V::zero();
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const int n = lanes_at(c, cols, V::kWidth);
      const V gradient = load_lanes<V>(dy + c, n);
      const V xhat = (load_lanes<V>(h + c, n) - m) * r;
      const V g = gradient * load_lanes<V>(gamma + c, n);  // 0 in unused lanes
      sum_g = sum_g + g;
      sum_gx = V::fma(g, xhat, sum_gx);
      if (dgamma != nullptr)
        store_lanes(V::fma(gradient, xhat, load_lanes<V>(dgamma + c, n)), dgamma + c, n);
      if (dbeta != nullptr) store_lanes(gradient + load_lanes<V>(dbeta + c, n), dbeta + c, n);
    }
    if (dh == nullptr && dx == nullptr) return;
    const A count = static_cast<A>(cols);
    const V mean_g = V::set(kind == NormKind::Layer ? V::sum(sum_g) / count : 0);
    const V mean_gx = V::set(V::sum(sum_gx) / count);
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const int n = lanes_at(c, cols, V::kWidth);
      const V xhat = (load_lanes<V>(h + c, n) - m) * r;
      const V g = load_lanes<V>(dy + c, n) * load_lanes<V>(gamma + c, n);
      V d = r * (g - mean_g - xhat * mean_gx);
      if (extra != nullptr) d = d + load_lanes<V>(extra + c, n);
      if (dh != nullptr) store_lanes(d, dh + c, n);
      if (dx == nullptr || dx == dh) continue;
      if (draws != nullptr) d = V::keep(draws + c, threshold, d * scale);
      store_lanes(d, dx + c, n);
    }
  }
};

/// total[c] += sum over chunks of parts[chunk][c], in order.
template <class V, class A>
void add_parts(const A* parts, int64_t stride, int64_t chunks, int64_t cols, A* total) {
  for (int64_t c = 0; c < cols; c += V::kWidth) {
    const int n = lanes_at(c, cols, V::kWidth);
    V sum = V::zero();
    for (int64_t i = 0; i < chunks; ++i) sum = sum + load_lanes<V>(parts + i * stride + c, n);
    store_lanes(load_lanes<V>(total + c, n) + sum, total + c, n);
  }
}

}  // namespace

template <class T>
void norm_forward(NormKind kind, const T* x, const T* residual, const Dropout& drop,
                  const acc_t<T>* gamma, const acc_t<T>* beta, double eps, int64_t rows,
                  int64_t cols, T* h, T* y, acc_t<T>* mean, acc_t<T>* rstd) {
  using V = vec_for<T>;
  using A = acc_t<T>;
  const NormRow<T> row{kind, cols, eps};
  const bool on = drop.on();
  const uint32_t threshold = drop_threshold(drop);
  const V scale = V::set(drop_scale(drop));
  detail::share_out_each(rows, detail::rows_a_piece(cols), [&](int64_t r) {
    A* wide = detail::scratch<A>(1, draw_room(cols) * 2);
    uint16_t* draws = on ? reinterpret_cast<uint16_t*>(wide + draw_room(cols)) : nullptr;
    if (on) draw_row(drop, r, 0, cols, draws);
    row.join(x + r * cols, residual == nullptr ? nullptr : residual + r * cols, draws, threshold,
             scale, h == nullptr ? nullptr : h + r * cols, wide);
    A centre, root;
    row.statistics(wide, &centre, &root);
    if (mean != nullptr) mean[r] = centre;
    if (rstd != nullptr) rstd[r] = root;
    const V m = V::set(centre), s = V::set(root);
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const int n = lanes_at(c, cols, V::kWidth);
      V value = (V::load(wide + c) - m) * s * load_lanes<V>(gamma + c, n);
      if (beta != nullptr) value = value + load_lanes<V>(beta + c, n);
      store_lanes(value, y + r * cols + c, n);
    }
  });
}

template <class T>
void norm_backward(NormKind kind, const T* dy, const T* dh_extra, const T* h, const acc_t<T>* mean,
                   const acc_t<T>* rstd, const acc_t<T>* gamma, const Dropout& drop, int64_t rows,
                   int64_t cols, T* dh, T* dx, acc_t<T>* dgamma, acc_t<T>* dbeta) {
  using V = vec_for<T>;
  using A = acc_t<T>;
  const NormBackward<T> body{
      kind, gamma, dh_extra, cols, drop_threshold(drop), V::set(drop_scale(drop))};
  const bool on = drop.on() && dx != nullptr;
  const int64_t chunk_rows = norm_chunk_rows(rows), chunks = (rows + chunk_rows - 1) / chunk_rows;
  A* parts = dgamma != nullptr || dbeta != nullptr ? detail::scratch<A>(0, chunks * cols * 2 + 1)
                                                   : nullptr;
  const int64_t grain = detail::rows_a_piece(cols * chunk_rows);
  detail::share_out_each(chunks, grain, [&](int64_t chunk) {
    uint16_t* draws = on ? detail::scratch<uint16_t>(1, draw_room(cols)) : nullptr;
    A* part = parts == nullptr ? nullptr : parts + chunk * cols * 2;
    if (part != nullptr) __builtin_memset(part, 0, static_cast<size_t>(cols) * 2 * sizeof(A));
    const int64_t end = rows < (chunk + 1) * chunk_rows ? rows : (chunk + 1) * chunk_rows;
    for (int64_t r = chunk * chunk_rows; r < end; ++r) {
      if (on) draw_row(drop, r, 0, cols, draws);
      const int64_t at = r * cols;
      body.row(dy + at, dh_extra == nullptr ? nullptr : dh_extra + at, h + at,
               mean == nullptr ? 0 : mean[r], rstd[r], draws, dh == nullptr ? nullptr : dh + at,
               dx == nullptr ? nullptr : dx + at, dgamma == nullptr ? nullptr : part,
               dbeta == nullptr ? nullptr : part + cols);
    }
  });
  if (dgamma != nullptr) add_parts<V>(parts, cols * 2, chunks, cols, dgamma);
  if (dbeta != nullptr) add_parts<V>(parts + cols, cols * 2, chunks, cols, dbeta);
}
