#pragma once
#include <cstdint>
#include <memory>

/// Matrix products through oneDNN (float, bf16) or a blocked double-precision loop. No LibTorch
/// here.
namespace attune::kernels {

enum class DType : uint8_t { F32, BF16, F64 };

/// A dense row-major matrix; `transposed` means the product uses its transpose.
struct Matrix {
  const void* data = nullptr;
  DType type = DType::F32;
  int64_t rows = 0, cols = 0;  // as stored
  bool transposed = false;
  int64_t used_rows() const { return transposed ? cols : rows; }
  int64_t used_cols() const { return transposed ? rows : cols; }
};
struct MutableMatrix {
  void* data = nullptr;
  DType type = DType::F32;
  int64_t rows = 0, cols = 0;
};

class QuantizedMatrix;

/// A weight kept in oneDNN's own blocked layout for use as the right operand, made once.
class PackedMatrix {
 public:
  /// Packs the right operand b [K, N] (as used) for compute type `compute` (F32 or BF16; float
  /// sources are rounded to bf16). F64 keeps a plain copy. The layout is chosen for left operands
  /// of about `expected_rows` rows.
  PackedMatrix(const Matrix& b, DType compute, int64_t expected_rows = 2048);
  /// Packs other values of the same shape into the same memory.
  void fill(const Matrix& b);
  /// Packs the transpose of `other`, of shape [other.n(), other.k()], into the same memory. False,
  /// and nothing is done, where only the values themselves could be packed again.
  bool fill_transposed(const PackedMatrix& other);
  /// Packs what frozen codes stand for, or its transpose, a tile at a time, without the matrix in
  /// between. False, and nothing is done, where only the values themselves could be packed.
  bool fill_decoded(const QuantizedMatrix& codes, bool transposed);
  /// A packed matrix of that shape whose values are not set yet.
  static PackedMatrix unfilled(int64_t k, int64_t n, DType compute, int64_t expected_rows = 2048);
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;
  int64_t k() const;
  int64_t n() const;
  DType type() const;
  int64_t bytes() const;

 private:
  friend void gemm(const Matrix&, const PackedMatrix&, const MutableMatrix&, const void*, bool);
  struct State;
  PackedMatrix(int64_t k, int64_t n, DType compute, bool plain, int64_t expected_rows);
  std::unique_ptr<State> state_;
};

/// c = a b (+ bias over columns) (+ c when accumulate). a and b have one type; c is that type or
/// float; bias is float (double for F64) or null. Empty products (K = 0) give bias or zero. Throws
/// Internal on mismatched shapes.
void gemm(const Matrix& a, const Matrix& b, const MutableMatrix& c, const void* bias,
          bool accumulate);
void gemm(const Matrix& a, const PackedMatrix& b, const MutableMatrix& c, const void* bias,
          bool accumulate);
/// c_i = a_i b_i for `count` products of one shape, whose matrices lie one after another from those
/// given on. Threads share out whole products, so that small ones need not be cut.
void gemm_batch(int64_t count, const Matrix& a, const Matrix& b, const MutableMatrix& c);

/// Name of the oneDNN implementation the last plain or packed call of this thread used
/// ("brg:avx512_core_bf16", ...).
const char* last_gemm_implementation();

/// True when this CPU multiplies bf16 natively (AVX-512 BF16 or AMX).
bool has_native_bf16();

/// GF/s of packed products of one shape, measured now (doctor, bench).
double measure_gemm(int64_t m, int64_t k, int64_t n, DType type, double seconds);

}  // namespace attune::kernels
