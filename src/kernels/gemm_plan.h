#pragma once
#include <cstdint>
#include <dnnl.hpp>
#include <memory>
#include <string>

#include "kernels/gemm.h"

/// Cached oneDNN matmul primitives. Private to gemm.cpp.
namespace attune::kernels::detail {

/// Everything that decides which primitive computes a product.
struct GemmKey {
  int64_t m = 0, k = 0, n = 0;
  DType in = DType::F32, out = DType::F32;
  bool a_transposed = false, b_transposed = false, bias = false, accumulate = false;
  int threads = 0;
  uint64_t packed = 0;  // identifies a packed layout; 0: b is a plain matrix
  bool operator==(const GemmKey&) const = default;
};

struct GemmPlan {
  uint64_t id = 0;  // of all plans ever made
  dnnl::matmul primitive;
  dnnl::memory::desc a, b, c, bias;
  size_t scratchpad_bytes = 0;
  std::string implementation;
};

dnnl::engine& engine();
dnnl::memory::data_type onednn_type(DType type);

/// The plan for a key from the cache, made when absent. `packed` is b's layout when key.packed is
/// set. Throws dnnl::error when oneDNN cannot compute the product on this CPU.
std::shared_ptr<const GemmPlan> gemm_plan(const GemmKey& key, const dnnl::memory::desc* packed);

/// The layout oneDNN likes best for a right operand [k, n] under m rows.
dnnl::memory::desc preferred_layout(int64_t m, int64_t k, int64_t n, DType type);

/// Runs a plan on raw pointers.
void run_plan(const GemmPlan& plan, const void* a, const void* b, const void* bias, void* c);

/// c [m, n] = a b (+ bias) (+ c) in double; strides in elements. Blocked, threaded over rows of c.
void gemm_f64(const Matrix& a, const Matrix& b, const MutableMatrix& c, const double* bias,
              bool accumulate);

void set_last_implementation(const char* name);

}  // namespace attune::kernels::detail
