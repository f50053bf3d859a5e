// Elementwise kernels and column sums; included inside attune::kernels::<set> after the vector
// type.
namespace {

constexpr int64_t kElementChunk = 8192;  // elements a task: well above the cost of handing out work

/// Calls body(offset, n) for every vector of [0, count), n = lanes in use, in parallel chunks.
template <class V, class Body>
void for_vectors(int64_t count, const Body& body) {
  const int64_t chunks = (count + kElementChunk - 1) / kElementChunk;
  detail::share_out(chunks, 1, [&](int64_t first, int64_t last) {
    const int64_t end = count < last * kElementChunk ? count : last * kElementChunk;
    int64_t i = first * kElementChunk;
    for (; i + V::kWidth <= end; i += V::kWidth) body.full(i);
    if (i < end) body.part(i, static_cast<int>(end - i));
  });
}

template <class V>
V sigmoid(V x) {
  return V::set(1) / (V::set(1) + V::exp(V::zero() - x));
}

/// Twice the inner argument of the tanh form: 2 sqrt(2/pi) (x + 0.044715 x^3).
template <class V>
V gelu_inner(V x) {
  return x *
         V::fma(x * x, V::set(2 * 0.7978845608028654 * 0.044715), V::set(2 * 0.7978845608028654));
}

/// f(x); `slope` (may be null) gets f'(x).
template <Activation F, class V>
V activate(V x, V* slope) {
  [[maybe_unused]] const V one = V::set(1);
  if constexpr (F == Activation::Gelu && V::kTables) {
    if (slope != nullptr) *slope = V::gelu_slope_by_table(x);
    return x * V::normal_by_table(x);
  } else if constexpr (F == Activation::Gelu) {
    V density;
    const V cdf = V::normal(x, &density);
    if (slope != nullptr) *slope = V::fma(x, density, cdf);
    return x * cdf;
  } else if constexpr (F == Activation::GeluTanh) {
    const V gate =
        sigmoid(gelu_inner(x));  // (1 + tanh(u)) / 2 = sigmoid(2 u), without cancellation
    if (slope != nullptr) {
      const V inner =
          V::fma(x * x, V::set(6 * 0.7978845608028654 * 0.044715), V::set(2 * 0.7978845608028654));
      *slope = V::fma(x * gate * (one - gate), inner, gate);
    }
    return x * gate;
  } else if constexpr (F == Activation::QuickGelu || F == Activation::Silu) {
    const V rate = V::set(F == Activation::Silu ? 1.0 : 1.702);
    const V s = sigmoid(x * rate);
    if (slope != nullptr) *slope = V::fma(x * rate * s, one - s, s);
    return x * s;
  } else if constexpr (F == Activation::Relu) {
    const auto positive = V::less(V::zero(), x);
    if (slope != nullptr) *slope = V::select(positive, one, V::zero());
    return V::max(V::zero(), x);  // in this order NaN stays NaN
  } else if constexpr (F == Activation::Tanh) {
    const V t = V::tanh(x);
    if (slope != nullptr) *slope = one - t * t;
    return t;
  } else if constexpr (F == Activation::Sigmoid) {
    const V s = sigmoid(x);
    if (slope != nullptr) *slope = s * (one - s);
    return s;
  } else {
    if (slope != nullptr) *slope = one;
    return x;
  }
}

template <Activation F, class V, class T>
struct Forward {
  const T* x;
  T* y;
  void full(int64_t i) const { activate<F>(V::load(x + i), static_cast<V*>(nullptr)).store(y + i); }
  void part(int64_t i, int n) const {
    activate<F>(V::load(x + i, n), static_cast<V*>(nullptr)).store(y + i, n);
  }
};
template <Activation F, class V, class T>
struct Backward {
  const T* x;
  const T* dy;
  T* dx;
  void full(int64_t i) const {
    V slope;
    activate<F>(V::load(x + i), &slope);
    (V::load(dy + i) * slope).store(dx + i);
  }
  void part(int64_t i, int n) const {
    V slope;
    activate<F>(V::load(x + i, n), &slope);
    (V::load(dy + i, n) * slope).store(dx + i, n);
  }
};
template <Activation F, class V, class T>
struct GatedForward {
  const T* gate;
  const T* up;
  T* y;
  void full(int64_t i) const {
    (activate<F>(V::load(gate + i), static_cast<V*>(nullptr)) * V::load(up + i)).store(y + i);
  }
  void part(int64_t i, int n) const {
    (activate<F>(V::load(gate + i, n), static_cast<V*>(nullptr)) * V::load(up + i, n))
        .store(y + i, n);
  }
};
template <Activation F, class V, class T>
struct GatedBackward {
  const T* gate;
  const T* up;
  const T* dy;
  T* dgate;
  T* dup;
  void full(int64_t i) const {
    V slope;
    const V value = activate<F>(V::load(gate + i), &slope), gradient = V::load(dy + i),
            u = V::load(up + i);
    (gradient * u * slope).store(dgate + i);
    (gradient * value).store(dup + i);
  }
  void part(int64_t i, int n) const {
    V slope;
    const V value = activate<F>(V::load(gate + i, n), &slope), gradient = V::load(dy + i, n);
    const V u = V::load(up + i, n);
    (gradient * u * slope).store(dgate + i, n);
    (gradient * value).store(dup + i, n);
  }
};

/// Runs Body<F, V, T> for the activation given at run time.
template <template <Activation, class, class> class Body, class T, class... Args>
void run_activation(Activation f, int64_t count, Args... args) {
  using V = vec_for<T>;
  switch (f) {
    case Activation::Gelu:
      return for_vectors<V>(count, Body<Activation::Gelu, V, T>{args...});
    case Activation::GeluTanh:
      return for_vectors<V>(count, Body<Activation::GeluTanh, V, T>{args...});
    case Activation::QuickGelu:
      return for_vectors<V>(count, Body<Activation::QuickGelu, V, T>{args...});
    case Activation::Silu:
      return for_vectors<V>(count, Body<Activation::Silu, V, T>{args...});
    case Activation::Relu:
      return for_vectors<V>(count, Body<Activation::Relu, V, T>{args...});
    case Activation::Tanh:
      return for_vectors<V>(count, Body<Activation::Tanh, V, T>{args...});
    case Activation::Sigmoid:
      return for_vectors<V>(count, Body<Activation::Sigmoid, V, T>{args...});
    case Activation::Identity:
      return for_vectors<V>(count, Body<Activation::Identity, V, T>{args...});
  }
}

template <class V, class T>
struct Sum {
  T* y;
  const T* x;
  void full(int64_t i) const { (V::load(y + i) + V::load(x + i)).store(y + i); }
  void part(int64_t i, int n) const { (V::load(y + i, n) + V::load(x + i, n)).store(y + i, n); }
};
template <class V, class From, class To>
struct Copy {
  const From* from;
  To* to;
  void full(int64_t i) const { V::load(from + i).store(to + i); }
  void part(int64_t i, int n) const { V::load(from + i, n).store(to + i, n); }
};

}  // namespace

template <class T>
void activation_forward(Activation f, const T* x, T* y, int64_t count) {
  run_activation<Forward, T>(f, count, x, y);
}
template <class T>
void activation_backward(Activation f, const T* x, const T* dy, T* dx, int64_t count) {
  run_activation<Backward, T>(f, count, x, dy, dx);
}
template <class T>
void gated_forward(Activation f, const T* gate, const T* up, T* y, int64_t count) {
  run_activation<GatedForward, T>(f, count, gate, up, y);
}
template <class T>
void gated_backward(Activation f, const T* gate, const T* up, const T* dy, T* dgate, T* dup,
                    int64_t count) {
  run_activation<GatedBackward, T>(f, count, gate, up, dy, dgate, dup);
}
template <class T>
void add_inplace(T* y, const T* x, int64_t count) {
  for_vectors<vec_for<T>>(count, Sum<vec_for<T>, T>{y, x});
}
template <class From, class To>
void convert_values(const From* from, To* to, int64_t count) {
  for_vectors<vec_for<From>>(count, Copy<vec_for<From>, From, To>{from, to});
}

template <class T>
void dropout(const T* x, T* y, int64_t rows, int64_t cols, const Dropout& drop) {
  using V = vec_for<T>;
  const uint32_t threshold = drop_threshold(drop);
  const V scale = V::set(drop_scale(drop));
  detail::share_out_each(rows, detail::rows_a_piece(cols), [&](int64_t r) {
    uint16_t* draws = detail::scratch<uint16_t>(1, draw_room(cols));
    draw_row(drop, r, 0, cols, draws);
    const T* from = x + r * cols;
    T* to = y + r * cols;
    int64_t c = 0;
    for (; c + V::kWidth <= cols; c += V::kWidth)
      V::keep(draws + c, threshold, V::load(from + c) * scale).store(to + c);
    const int n = static_cast<int>(cols - c);
    if (n > 0) V::keep(draws + c, threshold, V::load(from + c, n) * scale).store(to + c, n);
  });
}

namespace {

/// Sums `rows` rows of Vectors adjacent full vectors; partial sums of 64 rows keep rounding small.
template <class V, int Vectors, class T>
void strip_sum(const T* x, int64_t rows, int64_t cols, V (&total)[Vectors]) {
  for (V& sum : total) sum = V::zero();
  for (int64_t r0 = 0; r0 < rows; r0 += 64) {
    const int64_t r1 = rows < r0 + 64 ? rows : r0 + 64;
    V part[Vectors];
    for (V& sum : part) sum = V::zero();
    for (int64_t r = r0; r < r1; ++r)
      for (int i = 0; i < Vectors; ++i) part[i] = part[i] + V::load(x + r * cols + i * V::kWidth);
    for (int i = 0; i < Vectors; ++i) total[i] = total[i] + part[i];
  }
}

/// The same for the n < kWidth columns at the end of the rows.
template <class V, class T>
V rest_sum(const T* x, int64_t rows, int64_t cols, int n) {
  V total = V::zero();
  for (int64_t r0 = 0; r0 < rows; r0 += 64) {
    const int64_t r1 = rows < r0 + 64 ? rows : r0 + 64;
    V part = V::zero();
    for (int64_t r = r0; r < r1; ++r) part = part + V::load(x + r * cols, n);
    total = total + part;
  }
  return total;
}

}  // namespace

template <class T>
void column_sum(const T* x, int64_t rows, int64_t cols, acc_t<T>* out, bool accumulate) {
  using V = vec_for<T>;
  // Strips of four vectors read whole cache lines; each column is summed in the same order in any
  // strip.
  constexpr int64_t kStrip = 4 * V::kWidth;
  const int64_t strips = (cols + kStrip - 1) / kStrip;
  const int64_t grain = rows * cols > kElementChunk ? 1 : strips;
  detail::share_out_each(strips, grain, [&](int64_t s) {
    int64_t c = s * kStrip;
    const int64_t end = cols < c + kStrip ? cols : c + kStrip;
    if (end - c == kStrip) {
      V sums[4];
      strip_sum<V, 4>(x + c, rows, cols, sums);
      for (int i = 0; i < 4; ++i, c += V::kWidth)
        (accumulate ? V::load(out + c) + sums[i] : sums[i]).store(out + c);
    }
    for (; c < end; c += V::kWidth) {
      const int n = static_cast<int>(end - c < V::kWidth ? end - c : V::kWidth);
      V sum = rest_sum<V>(x + c, rows, cols, n);
      if (accumulate) sum = sum + V::load(out + c, n);
      sum.store(out + c, n);
    }
  });
}

namespace {
inline double as_double(float x) {
  return x;
}
inline double as_double(double x) {
  return x;
}
inline double as_double(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
}  // namespace

template <class T>
double sum_of_squares(const T* x, int64_t count) {
  const int64_t chunks = (count + kElementChunk - 1) / kElementChunk;
  double* parts = detail::scratch<double>(0, chunks + 1);
  detail::share_out_each(chunks, 1, [&](int64_t chunk) {
    const int64_t end = count < (chunk + 1) * kElementChunk ? count : (chunk + 1) * kElementChunk;
    double lanes[16] = {};
    int64_t i = chunk * kElementChunk;
    for (; i + 16 <= end; i += 16)
      for (int lane = 0; lane < 16; ++lane)
        lanes[lane] += as_double(x[i + lane]) * as_double(x[i + lane]);
    for (; i < end; ++i) lanes[i % 16] += as_double(x[i]) * as_double(x[i]);
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    parts[chunk] = sum;
  });
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += parts[chunk];
  return sum;
}
