// Embeddings, pooling, loss and optimizer; included inside attune::kernels::<set> after norm.inl.
template <class T>
void embedding_forward(int tables, const acc_t<T>* const* table, const int32_t* const* index,
                       int64_t rows, int64_t cols, T* y) {
  using V = vec_for<T>;
#pragma omp parallel for schedule(static) if (rows * cols > 8192)
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const int n = lanes_at(c, cols, V::kWidth);
      V sum = V::zero();
      for (int t = 0; t < tables; ++t)
        sum = sum + load_lanes<V>(table[t] + index[t][r] * cols + c, n);
      store_lanes(sum, y + r * cols + c, n);
    }
  }
}

template <class T>
void embedding_groups(const T* dy, const int32_t* index, const int32_t* order,
                      const int32_t* starts, int64_t groups, int64_t cols, acc_t<T>* dtable) {
  using V = vec_for<T>;
  // One task a (group, strip of columns): few distinct indices (types, positions) still use every
  // thread.
  const int64_t strip = 64, strips = (cols + strip - 1) / strip;
#pragma omp parallel for schedule(dynamic, 16) if (groups * cols > 4096)
  for (int64_t task = 0; task < groups * strips; ++task) {
    const int64_t g = task / strips, c0 = task % strips * strip;
    const int64_t c1 = cols < c0 + strip ? cols : c0 + strip;
    acc_t<T>* to = dtable + index[order[starts[g]]] * cols;
    for (int64_t c = c0; c < c1; c += V::kWidth) {
      const int n = lanes_at(c, c1, V::kWidth);
      V sum = V::zero();
      for (int32_t i = starts[g]; i < starts[g + 1]; ++i)
        sum = sum + load_lanes<V>(dy + order[i] * cols + c, n);
      store_lanes(load_lanes<V>(to + c, n) + sum, to + c, n);
    }
  }
}

namespace {

template <class V, class T, class A>
void pool_max(const T* x, int64_t begin, int64_t end, int64_t cols, A* y, int32_t* argmax) {
  for (int64_t c = 0; c < cols; ++c) {
    A best = static_cast<A>(as_double(x[begin * cols + c]));
    int64_t at = begin;
    for (int64_t r = begin + 1; r < end; ++r) {
      const A value = static_cast<A>(as_double(x[r * cols + c]));
      if (value > best || value != value) {
        best = value;
        at = r;
      }
    }
    y[c] = best;
    argmax[c] = static_cast<int32_t>(at);
  }
}

}  // namespace

template <class T>
void pool_forward(Pool kind, const T* x, const int32_t* offsets, int64_t sequences, int64_t cols,
                  acc_t<T>* y, int32_t* argmax) {
  using V = vec_for<T>;
#pragma omp parallel for schedule(static) if (sequences * cols > 2048)
  for (int64_t b = 0; b < sequences; ++b) {
    int64_t begin = offsets[b], end = offsets[b + 1];
    acc_t<T>* to = y + b * cols;
    if (begin == end) {
      for (int64_t c = 0; c < cols; ++c) to[c] = 0;
      for (int64_t c = 0; argmax != nullptr && c < cols; ++c) argmax[b * cols + c] = -1;
      continue;
    }
    if (kind == Pool::Max) {
      pool_max<V>(x, begin, end, cols, to, argmax + b * cols);
      continue;
    }
    if (kind == Pool::First) end = begin + 1;
    if (kind == Pool::Last) begin = end - 1;
    const V share = V::set(1.0 / static_cast<double>(end - begin));
    for (int64_t c = 0; c < cols; c += V::kWidth) {
      const int n = lanes_at(c, cols, V::kWidth);
      V sum = V::zero();
      for (int64_t r = begin; r < end; ++r) sum = sum + load_lanes<V>(x + r * cols + c, n);
      store_lanes(sum * share, to + c, n);
    }
  }
}

template <class T>
void pool_backward(Pool kind, const acc_t<T>* dy, const int32_t* offsets, int64_t sequences,
                   int64_t cols, const int32_t* argmax, T* dx) {
  using V = vec_for<T>;
#pragma omp parallel for schedule(static) if (sequences * cols > 2048)
  for (int64_t b = 0; b < sequences; ++b) {
    const int64_t begin = offsets[b], end = offsets[b + 1];
    const acc_t<T>* from = dy + b * cols;
    const V share = V::set(kind == Pool::Mean ? 1.0 / static_cast<double>(end - begin) : 1.0);
    for (int64_t r = begin; r < end; ++r) {
      const bool used = kind == Pool::Mean || (kind == Pool::First && r == begin) ||
                        (kind == Pool::Last && r == end - 1);
      for (int64_t c = 0; c < cols; c += V::kWidth) {
        const int n = lanes_at(c, cols, V::kWidth);
        store_lanes(used ? load_lanes<V>(from + c, n) * share : V::zero(), dx + r * cols + c, n);
      }
    }
    for (int64_t c = 0; kind == Pool::Max && begin < end && c < cols; ++c)
      V::set(static_cast<double>(from[c])).store(dx + argmax[b * cols + c] * cols + c, 1);
  }
}

namespace {

/// One row of cross_entropy; `wide` has room for the row in acc_t. Returns the row's loss.
template <class T>
struct LossRow {
  using V = vec_for<T>;
  using A = acc_t<T>;
  const T* weights;
  double smoothing, weight_sum;
  int64_t classes;

  V weight(int64_t c, int n) const {
    return only(weights == nullptr ? V::set(1) : load_lanes<V>(weights + c, n), n);
  }

  double run(const T* logits, int64_t label, T* dlogits, A* wide) const {
    V top = V::set(-__builtin_inf());
    for (int64_t c = 0; c < classes; c += V::kWidth) {
      const int n = lanes_at(c, classes, V::kWidth);
      const V z = load_lanes<V>(logits + c, n);
      top = V::max(top, n == V::kWidth ? z : V::select(V::less(V::index(), V::set(n)), z, top));
    }
    const V shift = V::set(V::maximum(top));
    V sum = V::zero(), weighted = V::zero();
    for (int64_t c = 0; c < classes; c += V::kWidth) {
      const int n = lanes_at(c, classes, V::kWidth);
      const V z = load_lanes<V>(logits + c, n) - shift;
      const V e = only(V::exp(z), n);
      e.store(wide + c);
      sum = sum + e;
      if (smoothing > 0) weighted = V::fma(weight(c, n), only(z, n), weighted);
    }
    const double total = static_cast<double>(V::sum(sum)), log_sum = __builtin_log(total);
    const double z_label = as_double(logits[label]) - as_double_lane(shift);
    const double w = weights == nullptr ? 1.0 : as_double(weights[label]);
    const double even = smoothing / static_cast<double>(classes), own = (1 - smoothing) * w;
    double loss = own * (log_sum - z_label);
    if (smoothing > 0)
      loss += even * (log_sum * weight_sum - static_cast<double>(V::sum(weighted)));
    if (dlogits != nullptr) gradient(label, own, even, total, wide, dlogits);
    return loss;
  }
  void gradient(int64_t label, double own, double even, double total, const A* wide,
                T* dlogits) const {
    const V factor = V::set((own + even * weight_sum) / total), share = V::set(even);
    for (int64_t c = 0; c < classes; c += V::kWidth) {
      const int n = lanes_at(c, classes, V::kWidth);
      V d = V::load(wide + c) * factor;
      if (smoothing > 0) d = d - share * weight(c, n);
      if (label >= c && label < c + n) {
        A lanes[V::kWidth];
        d.store(lanes);
        lanes[label - c] -= static_cast<A>(own);
        d = V::load(lanes);
      }
      store_lanes(d, dlogits + c, n);
    }
  }
  static double as_double_lane(V x) { return static_cast<double>(V::maximum(x)); }
};

}  // namespace

template <class T>
double cross_entropy(const T* logits, const int64_t* labels, const T* weights, double smoothing,
                     int64_t rows, int64_t classes, T* dlogits, double* count) {
  using V = vec_for<T>;
  double weight_sum = static_cast<double>(classes);
  if (weights != nullptr) {
    weight_sum = 0;
    for (int64_t c = 0; c < classes; ++c) weight_sum += as_double(weights[c]);
  }
  const LossRow<T> row{weights, smoothing, weight_sum, classes};
  double* losses = detail::scratch<double>(0, rows + 1);
#pragma omp parallel for schedule(static) if (rows * classes > 4096)
  for (int64_t r = 0; r < rows; ++r) {
    acc_t<T>* wide = detail::scratch<acc_t<T>>(1, classes + V::kWidth);
    T* d = dlogits == nullptr ? nullptr : dlogits + r * classes;
    losses[r] = 0;
    if (labels[r] >= 0 && labels[r] < classes)
      losses[r] = row.run(logits + r * classes, labels[r], d, wide);
    else if (d != nullptr)
      __builtin_memset(d, 0, static_cast<size_t>(classes) * sizeof(T));
  }
  double loss = 0, counted = 0;
  for (int64_t r = 0; r < rows; ++r) {
    loss += losses[r];
    if (labels[r] >= 0 && labels[r] < classes)
      counted += weights == nullptr ? 1.0 : as_double(weights[labels[r]]);
  }
  if (count != nullptr) *count = counted;
  return loss;
}

namespace {

template <class V, class T>
struct AdamWBody {
  T* p;
  const T* gradient;
  T* m;
  T* v;
  const uint8_t* mask;
  V gradient_scale, beta1, rest1, beta2, rest2, keep, step, root_correction, eps;

  void full(int64_t i) const { part(i, V::kWidth); }
  void part(int64_t i, int n) const {
    const V g = load_lanes<V>(gradient + i, n) * gradient_scale;
    const V old_p = load_lanes<V>(p + i, n), old_m = load_lanes<V>(m + i, n),
            old_v = load_lanes<V>(v + i, n);
    V new_m = V::fma(old_m, beta1, g * rest1), new_v = V::fma(old_v, beta2, g * g * rest2);
    V new_p = old_p * keep - step * new_m / V::fma(V::sqrt(new_v), root_correction, eps);
    if (mask != nullptr) {
      new_m = V::keep_bytes(mask + i, n, new_m, old_m);
      new_v = V::keep_bytes(mask + i, n, new_v, old_v);
      new_p = V::keep_bytes(mask + i, n, new_p, old_p);
    }
    store_lanes(new_m, m + i, n);
    store_lanes(new_v, v + i, n);
    store_lanes(new_p, p + i, n);
  }
};

template <class T>
AdamWBody<vec_for<T>, T> adamw_body(const AdamW& o, T* p, const T* gradient, T* m, T* v,
                                    const uint8_t* mask) {
  using V = vec_for<T>;
  const AdamWRest rest = adamw_rest(o);
  return {p,
          gradient,
          m,
          v,
          mask,
          V::set(o.gradient_scale),
          V::set(o.beta1),
          V::set(1 - o.beta1),
          V::set(o.beta2),
          V::set(1 - o.beta2),
          V::set(rest.keep),
          V::set(rest.rate),
          V::set(rest.root),
          V::set(o.eps)};
}

}  // namespace

template <class T>
void adamw(const AdamW& o, T* p, const T* gradient, T* m, T* v, const uint8_t* mask,
           int64_t count) {
  for_vectors<vec_for<T>>(count, adamw_body<T>(o, p, gradient, m, v, mask));
}

template <class T>
void adamw_rows(const AdamW& o, const int64_t* rows, int64_t n, const T* gradient, T* p, T* m, T* v,
                int64_t cols) {
  using V = vec_for<T>;
  const AdamWBody<V, T> whole = adamw_body<T>(o, p, gradient, m, v, nullptr);
  detail::share_out_each(n, detail::rows_a_piece(cols), [&](int64_t r) {
    AdamWBody<V, T> row = whole;
    row.p += rows[r] * cols;
    row.m += rows[r] * cols;
    row.v += rows[r] * cols;
    row.gradient = gradient + r * cols;
    int64_t i = 0;
    for (; i + V::kWidth <= cols; i += V::kWidth) row.full(i);
    if (i < cols) row.part(i, static_cast<int>(cols - i));
  });
}

namespace {

/// Steps without a gradient, for one row after another.
template <class V, class T>
struct MissedSteps {
  const T* rests;  // keep, rate and root of each step
  int64_t count, cols;
  V beta1, beta2, eps;

  /// The decay alone.
  void decay(const T* first, T* p) const {
    for (int64_t i = 0; i < cols; i += V::kWidth) {
      const int n = lanes_at(i, cols, V::kWidth);
      V x = load_lanes<V>(p + i, n);
      for (const T* rest = first; rest < rests + 3 * count; rest += 3) x = x * V::set(rest[0]);
      store_lanes(x, p + i, n);
    }
  }
  void move(const T* first, T* p, T* m, T* v) const {
    for (int64_t i = 0; i < cols; i += V::kWidth) {
      const int n = lanes_at(i, cols, V::kWidth);
      V x = load_lanes<V>(p + i, n), mean = load_lanes<V>(m + i, n),
        square = load_lanes<V>(v + i, n);
      for (const T* rest = first; rest < rests + 3 * count; rest += 3) {
        mean = V::fma(mean, beta1, V::zero());
        square = V::fma(square, beta2, V::zero());
        x = x * V::set(rest[0]) -
            V::set(rest[1]) * mean / V::fma(V::sqrt(square), V::set(rest[2]), eps);
      }
      store_lanes(x, p + i, n);
      store_lanes(mean, m + i, n);
      store_lanes(square, v + i, n);
    }
  }
};

}  // namespace

template <class T>
void adamw_missed(const AdamW& o, const AdamWRest* steps, int64_t count, const MissedRow* rows,
                  int64_t n, T* p, T* m, T* v, int64_t cols) {
  using V = vec_for<T>;
  T* rests = detail::scratch<T>(0, 3 * count + 1);
  for (int64_t s = 0; s < count; ++s) {
    rests[3 * s] = static_cast<T>(steps[s].keep);
    rests[3 * s + 1] = static_cast<T>(steps[s].rate);
    rests[3 * s + 2] = static_cast<T>(steps[s].root);
  }
  const MissedSteps<V, T> missed{rests, count, cols, V::set(o.beta1), V::set(o.beta2),
                                 V::set(o.eps)};
  detail::share_out_each(n, detail::rows_a_piece(cols), [&](int64_t i) {
    const T* first = rests + 3 * rows[i].first;
    const int64_t at = rows[i].row * cols;
    if (rows[i].moments)
      missed.move(first, p + at, m + at, v + at);
    else
      missed.decay(first, p + at);
  });
}
