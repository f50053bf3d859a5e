#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace attune {

/// A fixed random projection of few numbers to many, near to an isometry, without its matrix:
/// x = H G P H B z / sqrt(length * sum(g^2)), cut to `length`. H is the Walsh-Hadamard matrix of N
/// rows (N the power of two from max(length, size) on), B random signs, P a permutation, G standard
/// normal numbers g; z is filled up with zeros.
/// Memory: 8 bytes for each of the N rows. Cost: N log2(N) additions.
/// Reference: Le et al. 2013, "Fastfood: Approximating Kernel Expansions in Loglinear Time", arXiv
/// 1408.3060, equation 8.
class Fastfood {
 public:
  /// Projects `size` numbers to `length`, drawn from `key`.
  Fastfood(uint64_t key, int64_t size, int64_t length);
  int64_t rows() const { return static_cast<int64_t>(scale_.size()); }
  int64_t period() const { return period_; }
  const std::vector<float>& signs() const { return signs_; }    // [size]
  const std::vector<int32_t>& order() const { return order_; }  // [rows], modulo period
  const std::vector<float>& scale() const { return scale_; }    // [rows]: G
  double factor() const { return factor_; }

  /// x = P z, or its transpose z = P^T x, without gradients; float or double.
  at::Tensor times(const at::Tensor& z) const;
  at::Tensor transposed_times(const at::Tensor& x) const;

 private:
  template <class T>
  void forward(const T* z, T* x) const;
  template <class T>
  void backward(const T* x, T* z) const;

  int64_t size_, length_, period_;
  double factor_ = 0;
  std::vector<float> signs_, scale_;
  std::vector<int32_t> order_;
};

/// x = P z, z [size] to x [length], differentiable. The graph shares the projection until its
/// backward pass is over.
at::Tensor project(const std::shared_ptr<const Fastfood>& by, const at::Tensor& z);

/// x <- H x in place for a power of two `count`; H the Walsh-Hadamard matrix of entries +-1.
void walsh_hadamard(float* x, int64_t count);
void walsh_hadamard(double* x, int64_t count);

}  // namespace attune
