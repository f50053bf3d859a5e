#include "methods/fastfood.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "base/error.h"
#include "base/random.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

using at::Tensor;

namespace {

constexpr int64_t kInCache = 4096;  // values whose passes stay in the first-level cache

/// Sums and differences of the two halves.
template <class T>
void butterfly(T* __restrict x, T* __restrict y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T a = x[i], b = y[i];
    x[i] = a + b;
    y[i] = a - b;
  }
}

/// Halves first, so that each is finished while it is in cache.
template <class T>
void transform(T* x, int64_t count) {
  if (count > kInCache) {
    transform(x, count / 2);
    transform(x + count / 2, count / 2);
    butterfly(x, x + count / 2, count / 2);
    return;
  }
  for (int64_t half = 1; half < count; half *= 2)
    for (int64_t begin = 0; begin < count; begin += 2 * half)
      butterfly(x + begin, x + begin + half, half);
}

int64_t power_of_two(int64_t least) {
  int64_t power = 1;
  while (power < least) power *= 2;
  return power;
}

}  // namespace

void walsh_hadamard(float* x, int64_t count) {
  transform(x, count);
}
void walsh_hadamard(double* x, int64_t count) {
  transform(x, count);
}

Fastfood::Fastfood(uint64_t key, int64_t size, int64_t length)
    : size_(size), length_(length), period_(power_of_two(size)) {
  const Stream64 stream(key);
  const Stream64 signs = stream.with("signs"), normals = stream.with("normals");
  for (int64_t i = 0; i < size; ++i)
    signs_.push_back((signs.bits(static_cast<uint64_t>(i)) & 1) == 0 ? 1.0F : -1.0F);
  const int64_t count = power_of_two(std::max(length, size));
  ATTUNE_ASSERT(count <= std::numeric_limits<int32_t>::max());
  // H of a vector that is zero behind its first `period` entries repeats with that period.
  for (const int64_t place : stream.with("order").permutation(count))
    order_.push_back(static_cast<int32_t>(place & (period_ - 1)));
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    scale_.push_back(static_cast<float>(normals.normal(static_cast<uint64_t>(i))));
    squares += static_cast<double>(scale_.back()) * scale_.back();
  }
  factor_ = 1 / std::sqrt(static_cast<double>(length) * squares);
}

template <class T>
void Fastfood::forward(const T* z, T* x) const {
  std::vector<T> first(static_cast<size_t>(period_)), all(scale_.size());
  for (size_t i = 0; i < signs_.size(); ++i) first[i] = z[i] * static_cast<T>(signs_[i]);
  walsh_hadamard(first.data(), period_);
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = first[static_cast<size_t>(order_[i])] * static_cast<T>(scale_[i]);
  walsh_hadamard(all.data(), rows());
  for (int64_t i = 0; i < length_; ++i)
    x[i] = all[static_cast<size_t>(i)] * static_cast<T>(factor_);
}

/// H is symmetric, so every step runs backwards.
template <class T>
void Fastfood::backward(const T* x, T* z) const {
  std::vector<T> first(static_cast<size_t>(period_)), all(scale_.size());
  for (int64_t i = 0; i < length_; ++i)
    all[static_cast<size_t>(i)] = x[i] * static_cast<T>(factor_);
  walsh_hadamard(all.data(), rows());
  for (size_t i = 0; i < all.size(); ++i)
    first[static_cast<size_t>(order_[i])] += all[i] * static_cast<T>(scale_[i]);
  walsh_hadamard(first.data(), period_);
  for (size_t i = 0; i < signs_.size(); ++i) z[i] = first[i] * static_cast<T>(signs_[i]);
}

Tensor Fastfood::times(const Tensor& z) const {
  ATTUNE_ASSERT(z.numel() == size_);
  const Tensor in = dense_as(z, z.scalar_type());
  Tensor out = at::empty({length_}, in.options());
  if (in.scalar_type() == at::kDouble) {
    forward(pointer<const double>(in), pointer<double>(out));
  } else {
    forward(pointer<const float>(in), pointer<float>(out));
  }
  return out;
}

Tensor Fastfood::transposed_times(const Tensor& x) const {
  ATTUNE_ASSERT(x.numel() == length_);
  const Tensor in = dense_as(x, x.scalar_type());
  Tensor out = at::empty({size_}, in.options());
  if (in.scalar_type() == at::kDouble) {
    backward(pointer<const double>(in), pointer<double>(out));
  } else {
    backward(pointer<const float>(in), pointer<float>(out));
  }
  return out;
}

Tensor project(const std::shared_ptr<const Fastfood>& by, const Tensor& z) {
  return record(by->times(z.detach()), {z}, "fastfood",
                [by](const Tensors& g) { return Tensors{by->transposed_times(g[0])}; });
}

}  // namespace attune
