#include "kernels/gemm.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/gemm_blocks.h"
#include "kernels/gemm_run.h"
#include "kernels/gemm_turned.h"
#include "kernels/kernels.h"

namespace attune::kernels {
namespace {

/// c = bias (+ c) for an empty inner dimension.
void fill(const MutableMatrix& c, const void* bias, bool accumulate) {
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t j = 0; j < c.cols; ++j) {
      const int64_t at = r * c.cols + j;
      if (c.type == DType::F64) {
        double& x = static_cast<double*>(c.data)[at];
        x = (accumulate ? x : 0) + (bias != nullptr ? static_cast<const double*>(bias)[j] : 0);
        continue;
      }
      float old = 0;
      if (accumulate && c.type == DType::F32) old = static_cast<float*>(c.data)[at];
      if (accumulate && c.type == DType::BF16) convert(static_cast<bf16*>(c.data) + at, &old, 1);
      const float value = old + (bias != nullptr ? static_cast<const float*>(bias)[j] : 0);
      if (c.type == DType::F32) static_cast<float*>(c.data)[at] = value;
      if (c.type == DType::BF16) convert(&value, static_cast<bf16*>(c.data) + at, 1);
    }
}

/// Where oneDNN has no bf16 product.
void gemm_widened(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
                  bool accumulate) {
  const std::vector<float> wide_a = detail::widened(a.data, a.type, a.rows * a.cols);
  const std::vector<float> wide_b = detail::widened(b.data, b.type, b.rows * b.cols);
  std::vector<float> wide_c = detail::widened(c.data, c.type, c.rows * c.cols);
  gemm({wide_a.data(), DType::F32, a.rows, a.cols, a.transposed},
       {wide_b.data(), DType::F32, b.rows, b.cols, b.transposed},
       {wide_c.data(), DType::F32, c.rows, c.cols}, bias, accumulate);
  if (c.type == DType::BF16)
    convert(wide_c.data(), static_cast<bf16*>(c.data), c.rows * c.cols);
  else
    std::memcpy(c.data, wide_c.data(), wide_c.size() * 4);
}

/// One product of exactly these sizes.
void run_product(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
                 bool accumulate) {
  detail::GemmKey key = detail::key_of(a, c.cols, c, bias, accumulate);
  key.b_transposed = b.transposed;
  detail::run_key(key, nullptr, a.data, b.data, bias, c.data);
}

}  // namespace

bool has_native_bf16() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
}

void gemm(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
          bool accumulate) {
  detail::check_product(a.used_rows(), a.used_cols(), a.type, b.used_rows(), b.used_cols(), b.type,
                        c);
  if (c.rows == 0 || c.cols == 0) return;
  if (a.used_cols() == 0) return fill(c, bias, accumulate);
  if (a.type == DType::F64)
    return detail::gemm_f64(a, b, c, static_cast<const double*>(bias), accumulate);
  if (a.type == DType::BF16 && !detail::bf16_products())
    return gemm_widened(a, b, c, bias, accumulate);
  if (!a.transposed)
    return detail::product_by_rows(a, c, accumulate,
                                   [&](const Matrix& a_part, const MutableMatrix& c_part) {
                                     run_product(a_part, b, c_part, bias, accumulate);
                                   });
  // Partial sums in bf16 would round twice.
  if (b.transposed || bias != nullptr || c.type == DType::BF16)
    return run_product(a, b, c, bias, accumulate);
  if (const std::unique_ptr<TurnedProduct> turned = TurnedProduct::begin(a, b, accumulate))
    return turned->into(c);
  detail::product_by_inner(a, b, accumulate,
                           [&](const Matrix& a_part, const Matrix& b_part, bool add) {
                             run_product(a_part, b_part, c, nullptr, add);
                           });
}

void gemm_batch(int64_t count, const Matrix& a, const Matrix& b, const MutableMatrix& c) {
  detail::check_product(a.used_rows(), a.used_cols(), a.type, b.used_rows(), b.used_cols(), b.type,
                        c);
  const int64_t size = detail::size_of(a.type), c_size = detail::size_of(c.type);
  const auto product_at = [&](int64_t i, const auto& run) {
    run(static_cast<const char*>(a.data) + i * a.rows * a.cols * size,
        static_cast<const char*>(b.data) + i * b.rows * b.cols * size,
        static_cast<char*>(c.data) + i * c.rows * c.cols * c_size);
  };
  const bool empty = c.rows == 0 || c.cols == 0 || a.used_cols() == 0;
  if (empty || a.type == DType::F64 || (a.type == DType::BF16 && !detail::bf16_products())) {
    for (int64_t i = 0; i < count; ++i)
      product_at(i, [&](const void* a_i, const void* b_i, void* c_i) {
        gemm({a_i, a.type, a.rows, a.cols, a.transposed},
             {b_i, b.type, b.rows, b.cols, b.transposed}, {c_i, c.type, c.rows, c.cols}, nullptr,
             false);
      });
    return;
  }
  detail::GemmKey key = detail::key_of(a, c.cols, c, nullptr, false);
  key.b_transposed = b.transposed;
  key.threads = 1;
  try {
    const std::shared_ptr<const detail::GemmPlan> plan = detail::gemm_plan(key, nullptr);
    detail::share_pieces(count, [&](int64_t i) {
      product_at(i, [&](const void* a_i, const void* b_i, void* c_i) {
        detail::run_plan(*plan, a_i, b_i, nullptr, c_i);
      });
    });
    detail::set_last_implementation(plan->implementation.c_str());
  } catch (const dnnl::error& error) {
    detail::product_failed(key, error);
  }
}

double measure_gemm(int64_t m, int64_t k, int64_t n, DType type, double seconds) {
  const auto bytes = [&](int64_t count) {
    return std::vector<char>(static_cast<size_t>(count * detail::size_of(type)));
  };
  const std::vector<char> a = bytes(m * k), b = bytes(k * n);
  std::vector<char> c = bytes(m * n);
  const PackedMatrix packed({b.data(), type, k, n, false}, type, m);
  const auto once = [&] {
    gemm({a.data(), type, m, k, false}, packed, {c.data(), type, m, n}, nullptr, false);
  };
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 3; ++i) once();
  double best = 1e30;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point before = Clock::now();
    once();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - before).count());
  } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds);
  return 2.0 * static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(n) / best *
         1e-9;
}

}  // namespace attune::kernels
