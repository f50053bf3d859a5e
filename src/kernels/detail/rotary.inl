// Rotary positions; included inside attune::kernels::<set> after lanes.inl.
namespace {

/// One head whose pairs lie half of `dims` apart.
template <class V, class T>
void rotate_halves(const T* x, T* y, const acc_t<T>* cosines, const acc_t<T>* sines, int64_t half,
                   V sign) {
  for (int64_t c = 0; c < half; c += V::kWidth) {
    const int n = lanes_at(c, half, V::kWidth);
    const V cosine = load_lanes<V>(cosines + c, n), sine = load_lanes<V>(sines + c, n) * sign;
    const V a = load_lanes<V>(x + c, n), b = load_lanes<V>(x + half + c, n);
    store_lanes(a * cosine - b * sine, y + c, n);
    store_lanes(b * cosine + a * sine, y + half + c, n);
  }
}

/// One head whose pairs are neighbours.
template <class V, class T>
void rotate_neighbours(const T* x, T* y, const acc_t<T>* cosines, const acc_t<T>* sines,
                       int64_t half, V sign) {
  for (int64_t c = 0; c < half; ++c) {
    const V cosine = V::load(cosines + c, 1), sine = V::load(sines + c, 1) * sign;
    const V a = V::load(x + 2 * c, 1), b = V::load(x + 2 * c + 1, 1);
    (a * cosine - b * sine).store(y + 2 * c, 1);
    (b * cosine + a * sine).store(y + 2 * c + 1, 1);
  }
}

}  // namespace

template <class T>
void rotate(const Rotation<T>& rotation, const T* x, T* y, int64_t rows, bool back) {
  using V = vec_for<T>;
  const int64_t size = rotation.head_size, half = rotation.dims / 2;
  const V sign = V::set(back ? -1 : 1);
#pragma omp parallel for schedule(static) if (rows * rotation.heads * size > 8192)
  for (int64_t r = 0; r < rows; ++r) {
    const acc_t<T>* cosines = rotation.cosines + r * half;
    const acc_t<T>* sines = rotation.sines + r * half;
    for (int64_t head = 0; head < rotation.heads; ++head) {
      const T* from = x + (r * rotation.heads + head) * size;
      T* to = y + (r * rotation.heads + head) * size;
      if (rotation.interleaved)
        rotate_neighbours<V>(from, to, cosines, sines, half, sign);
      else
        rotate_halves<V>(from, to, cosines, sines, half, sign);
      for (int64_t c = 2 * half; c < size && from != to; ++c) to[c] = from[c];
    }
  }
}
