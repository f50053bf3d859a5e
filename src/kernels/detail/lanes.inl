// Access to the last, partly used vector of a row; included inside attune::kernels::<set> after the
// vector type.
namespace {

template <class V, class T>
V load_lanes(const T* p, int n) {
  return n == V::kWidth ? V::load(p) : V::load(p, n);
}
template <class V, class T>
void store_lanes(V x, T* p, int n) {
  if (n == V::kWidth)
    x.store(p);
  else
    x.store(p, n);
}
inline int lanes_at(int64_t c, int64_t cols, int width) {
  return static_cast<int>(cols - c < width ? cols - c : width);
}

/// Lanes < n of x; the others 0.
template <class V>
V only(V x, int n) {
  return n == V::kWidth ? x : V::select(V::less(V::index(), V::set(n)), x, V::zero());
}

}  // namespace
