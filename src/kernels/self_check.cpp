#include "kernels/self_check.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/random.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace attune::kernels {

namespace {

template <class T>
using Numbers = std::vector<T>;

template <class T>
T narrowed(double x) {
  if constexpr (std::is_same_v<T, bf16>) {
    const float value = static_cast<float>(x);
    bf16 result;
    convert(&value, &result, 1);
    return result;
  } else {
    return static_cast<T>(x);
  }
}
template <class T>
double widened(T x) {
  if constexpr (std::is_same_v<T, bf16>) {
    float result = 0;
    convert(&x, &result, 1);
    return result;
  } else {
    return x;
  }
}

template <class To, class From>
Numbers<To> as(const Numbers<From>& from) {
  Numbers<To> to;
  for (const From x : from) to.push_back(narrowed<To>(widened(x)));
  return to;
}

template <class T>
Numbers<T> drawn(const char* name, int64_t count) {
  const Stream64 stream(1, name);
  Numbers<T> numbers;
  for (int64_t i = 0; i < count; ++i)
    numbers.push_back(narrowed<T>(stream.normal(static_cast<uint64_t>(i))));
  return numbers;
}

template <class T>
double distance(const Numbers<T>& found, const Numbers<double>& expected) {
  double worst = 0, largest = 1;
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = std::abs(widened(found[i]) - expected[i]);
    if (!(error <= worst) && !std::isnan(worst)) worst = error;  // NaN is the worst
    largest = std::max(largest, std::abs(expected[i]));
  }
  return worst / largest;
}

/// The kernels on numbers of one type against themselves in double precision.
template <class T>
class Checks {
 public:
  std::vector<CheckedKernel> run() {
    product();
    activation();
    norm();
    attention();
    loss();
    return std::move(results_);
  }

 private:
  using Sum = acc_t<T>;
  static constexpr bool kHalf = std::is_same_v<T, bf16>;
  static constexpr DType kType = kHalf ? DType::BF16 : DType::F32;

  template <class U>
  void add(const char* name, const Numbers<U>& found, const Numbers<double>& expected) {
    results_.push_back({std::string(name) + (kHalf ? " (bf16)" : " (fp32)"),
                        distance(found, expected), kHalf ? 1e-2 : 1e-5});
  }

  void product() {
    constexpr int64_t m = 131, k = 77, n = 45;
    const Numbers<T> a = drawn<T>("a", m * k), b = drawn<T>("b", k * n);
    const Numbers<double> wide_a = as<double>(a), wide_b = as<double>(b);
    Numbers<T> c(static_cast<size_t>(m * n));
    Numbers<double> expected(c.size());
    gemm({wide_a.data(), DType::F64, m, k, false}, {wide_b.data(), DType::F64, k, n, false},
         {expected.data(), DType::F64, m, n}, nullptr, false);
    gemm({a.data(), kType, m, k, false}, PackedMatrix({b.data(), kType, k, n, false}, kType),
         {c.data(), kType, m, n}, nullptr, false);
    add("product of matrices", c, expected);
  }

  void activation() {
    constexpr int64_t count = 1003;
    const Numbers<T> x = drawn<T>("x", count), dy = drawn<T>("dy", count);
    const Numbers<double> wide_x = as<double>(x), wide_dy = as<double>(dy);
    Numbers<T> y(count), dx(count);
    Numbers<double> expected(count), gradient(count);
    activation_forward(Activation::Gelu, x.data(), y.data(), count);
    activation_forward(Activation::Gelu, wide_x.data(), expected.data(), count);
    add("GELU", y, expected);
    activation_backward(Activation::Gelu, x.data(), dy.data(), dx.data(), count);
    activation_backward(Activation::Gelu, wide_x.data(), wide_dy.data(), gradient.data(), count);
    add("GELU, backward", dx, gradient);
  }

  template <class U>
  struct Normed {
    Numbers<U> y, dx;
  };
  template <class U>
  static Normed<U> normed(const Numbers<U>& x, const Numbers<U>& dy, int64_t rows, int64_t cols) {
    const Numbers<acc_t<U>> gamma = as<acc_t<U>>(as<float>(drawn<double>("gamma", cols))),
                            beta = as<acc_t<U>>(as<float>(drawn<double>("beta", cols)));
    Normed<U> result{Numbers<U>(x.size()), Numbers<U>(x.size())};
    Numbers<U> h(x.size());
    Numbers<acc_t<U>> mean(static_cast<size_t>(rows)), rstd(mean.size());
    norm_forward<U>(NormKind::Layer, x.data(), dy.data(), {}, gamma.data(), beta.data(), 1e-12,
                    rows, cols, h.data(), result.y.data(), mean.data(), rstd.data());
    // Of the same rows for every type: what is checked here is the backward pass alone.
    norm_forward<U>(NormKind::Layer, x.data(), nullptr, {}, gamma.data(), beta.data(), 1e-12, rows,
                    cols, nullptr, h.data(), mean.data(), rstd.data());
    norm_backward<U>(NormKind::Layer, dy.data(), nullptr, x.data(), mean.data(), rstd.data(),
                     gamma.data(), {}, rows, cols, nullptr, result.dx.data(), nullptr, nullptr);
    return result;
  }
  void norm() {
    constexpr int64_t rows = 19, cols = 77;
    const Numbers<T> x = drawn<T>("x", rows * cols), dy = drawn<T>("dy", rows * cols);
    const Normed<T> found = normed(x, dy, rows, cols);
    const Normed<double> expected = normed(as<double>(x), as<double>(dy), rows, cols);
    add("norm of a sum", found.y, expected.y);
    add("norm, backward", found.dx, expected.dx);
  }

  template <class U>
  struct Attended {
    Numbers<U> out, dq, dk, dv;
  };
  template <class U>
  static Attended<U> attended(const Numbers<U>& q, const Numbers<U>& k, const Numbers<U>& v,
                              const Numbers<U>& dout, const AttentionShape& shape) {
    Attended<U> a{Numbers<U>(q.size()), Numbers<U>(q.size()), Numbers<U>(k.size()),
                  Numbers<U>(v.size())};
    Numbers<acc_t<U>> sums(q.size() / static_cast<size_t>(shape.head_size));
    attention_forward<U>(shape, {}, q.data(), k.data(), v.data(), a.out.data(), sums.data());
    attention_backward<U>(shape, {}, q.data(), k.data(), v.data(), a.out.data(), sums.data(),
                          dout.data(), a.dq.data(), a.dk.data(), a.dv.data());
    return a;
  }
  void attention() {
    const int32_t offsets[] = {0, 37, 38, 101};
    AttentionShape shape;
    shape.sequences = 3;
    shape.q_offsets = shape.k_offsets = offsets;
    shape.heads = 4;
    shape.kv_heads = 2;
    shape.head_size = 24;
    shape.q_stride = 4 * 24;
    shape.k_stride = shape.v_stride = 2 * 24;
    shape.scale = 1 / std::sqrt(24.0);
    shape.causal = true;
    const Numbers<T> q = drawn<T>("q", 101 * 96), k = drawn<T>("k", 101 * 48),
                     v = drawn<T>("v", 101 * 48), dout = drawn<T>("dout", 101 * 96);
    const Attended<T> found = attended(q, k, v, dout, shape);
    const Attended<double> expected =
        attended(as<double>(q), as<double>(k), as<double>(v), as<double>(dout), shape);
    add("attention", found.out, expected.out);
    add("attention, backward to queries", found.dq, expected.dq);
    add("attention, backward to keys", found.dk, expected.dk);
    add("attention, backward to values", found.dv, expected.dv);
  }

  /// Losses and the optimizer are in the master type always.
  void loss() {
    if constexpr (!kHalf) {
      constexpr int64_t rows = 13, classes = 101;
      const Numbers<float> logits = drawn<float>("logits", rows * classes);
      const Numbers<double> wide = as<double>(logits);
      Numbers<int64_t> labels;
      for (int64_t i = 0; i < rows; ++i) labels.push_back(i * 7 % classes);
      Numbers<float> gradient(logits.size());
      Numbers<double> expected(logits.size());
      double count = 0;
      cross_entropy<float>(logits.data(), labels.data(), nullptr, 0.1, rows, classes,
                           gradient.data(), &count);
      cross_entropy<double>(wide.data(), labels.data(), nullptr, 0.1, rows, classes,
                            expected.data(), &count);
      add("cross-entropy's gradient", gradient, expected);
      step();
    }
  }
  void step() {
    constexpr int64_t count = 1003;
    const AdamW options{1e-2, 0.9, 0.999, 1e-8, 0.1, 3, 0.5};
    const Numbers<float> gradient = drawn<float>("gradient", count);
    Numbers<float> p = drawn<float>("p", count), m = drawn<float>("m", count), v(count, 0.5F);
    Numbers<double> wide_p = as<double>(p), wide_m = as<double>(m), wide_v = as<double>(v);
    adamw<float>(options, p.data(), gradient.data(), m.data(), v.data(), nullptr, count);
    adamw<double>(options, wide_p.data(), as<double>(gradient).data(), wide_m.data(), wide_v.data(),
                  nullptr, count);
    add("step of AdamW", p, wide_p);
  }

  std::vector<CheckedKernel> results_;
};

}  // namespace

std::vector<CheckedKernel> self_check() {
  std::vector<CheckedKernel> results = Checks<float>().run();
  if (!has_native_bf16()) return results;
  for (CheckedKernel& kernel : Checks<bf16>().run()) results.push_back(std::move(kernel));
  return results;
}

}  // namespace attune::kernels
