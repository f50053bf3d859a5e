#include <vector>

#include "kernels/gemm_plan.h"

namespace attune::kernels::detail {
namespace {

constexpr int64_t kRows = 4, kCols = 8, kInner = 256;

/// The operand as dense rows [rows, cols] as used.
const double* dense(const Matrix& x, std::vector<double>& copy) {
  const double* from = static_cast<const double*>(x.data);
  if (!x.transposed) return from;
  const int64_t rows = x.used_rows(), cols = x.used_cols();
  copy.resize(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) copy[r * cols + c] = from[c * rows + r];
  return copy.data();
}

/// One kRows x kCols tile over [p0, p1) of the inner dimension.
void full_tile(const double* a, int64_t lda, const double* b, int64_t ldb, int64_t inner, double* c,
               int64_t ldc) {
  double sum[kRows][kCols];
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t j = 0; j < kCols; ++j) sum[r][j] = c[r * ldc + j];
  for (int64_t p = 0; p < inner; ++p)
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t j = 0; j < kCols; ++j) sum[r][j] += a[r * lda + p] * b[p * ldb + j];
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t j = 0; j < kCols; ++j) c[r * ldc + j] = sum[r][j];
}

void edge_tile(const double* a, int64_t lda, const double* b, int64_t ldb, int64_t inner, double* c,
               int64_t ldc, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t p = 0; p < inner; ++p)
      for (int64_t j = 0; j < cols; ++j) c[r * ldc + j] += a[r * lda + p] * b[p * ldb + j];
}

/// Rows [r0, r0 + rows) of c, which already holds its start values.
void row_panel(const double* a, const double* b, double* c, int64_t rows, int64_t inner,
               int64_t n) {
  for (int64_t p0 = 0; p0 < inner; p0 += kInner) {
    const int64_t depth = inner - p0 < kInner ? inner - p0 : kInner;
    for (int64_t j = 0; j < n; j += kCols) {
      const int64_t cols = n - j < kCols ? n - j : kCols;
      const double* right = b + p0 * n + j;
      if (rows == kRows && cols == kCols)
        full_tile(a + p0, inner, right, n, depth, c + j, n);
      else
        edge_tile(a + p0, inner, right, n, depth, c + j, n, rows, cols);
    }
  }
}

}  // namespace

void gemm_f64(const Matrix& a, const Matrix& b, const MutableMatrix& c, const double* bias,
              bool accumulate) {
  std::vector<double> copy_a, copy_b;
  const double* left = dense(a, copy_a);
  const double* right = dense(b, copy_b);
  double* to = static_cast<double*>(c.data);
  const int64_t inner = a.used_cols(), panels = (c.rows + kRows - 1) / kRows;
#pragma omp parallel for schedule(static) if (c.rows * c.cols * inner > 32768)
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t r0 = panel * kRows, rows = c.rows - r0 < kRows ? c.rows - r0 : kRows;
    for (int64_t r = r0; r < r0 + rows; ++r)
      for (int64_t j = 0; j < c.cols; ++j)
        to[r * c.cols + j] =
            (accumulate ? to[r * c.cols + j] : 0) + (bias != nullptr ? bias[j] : 0);
    row_panel(left + r0 * inner, right, to + r0 * c.cols, rows, inner, c.cols);
  }
  set_last_implementation("attune:f64");
}

}  // namespace attune::kernels::detail
