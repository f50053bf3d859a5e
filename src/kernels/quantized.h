#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace attune::kernels {

/// Int8: symmetric, one scale a row (largest absolute value / 127). Nf4: 16 levels of a normal
/// quantile code, one scale (largest absolute value) a run of 64 elements of the flattened matrix.
enum class CodeKind : uint8_t { Int8, Nf4 };
struct CodeOptions {
  CodeKind kind = CodeKind::Nf4;
  // Nf4: scales as 8-bit codes in runs of 256, their mean subtracted (double quantisation)
  bool double_scales = true;
};

/// A frozen matrix [rows, cols] kept as codes of 8 or 4 bits. Reference: Dettmers et al. 2023,
/// "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314, sections 2 and 3 (NF4, double
/// quantisation); Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339, equation 4 for rows.
/// Differs: int8 codes weights alone; activations stay in the compute type.
class QuantizedMatrix {
 public:
  static constexpr int64_t kRun = 64, kScaleRun = 256;
  /// Errors: BadInput when a value is not finite.
  QuantizedMatrix(const float* values, int64_t rows, int64_t cols, CodeOptions options);
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const CodeOptions& options() const { return options_; }
  /// The values, rounded to T: float, double or bf16.
  template <class T>
  void decode(T* out) const;
  /// True when a tile's rows are whole runs.
  bool has_tiles() const { return options_.kind == CodeKind::Int8 || cols_ % kRun == 0; }
  /// The values of rows [row, row + kTile) and columns [col, col + kTile) in turn, zero beyond the
  /// matrix; `scales` are those of scales(), `col` a multiple of kTile. Only where has_tiles(), for
  /// CPUs with AVX-512; opens no parallel region.
  static constexpr int64_t kTile = 64;
  void decode_tile(const float* scales, int64_t row, int64_t col, bf16* out) const;
  /// Codes and scales.
  int64_t bytes() const;
  /// The code of an element: -127..127, or a level 0..15.
  int code(int64_t element) const;
  /// The scales that decoding multiplies by: [rows] or [runs].
  std::vector<float> scales() const;

  /// The levels of NF4 in order, from -1 to 1, one of them exactly 0.
  static const std::array<float, 16>& levels();
  /// The signed 8-bit code of the second quantisation, in order: a dynamic tree of seven decades.
  static const std::array<float, 256>& scale_levels();

 private:
  void encode_rows(const float* values);
  void encode_runs(const float* values);
  void encode_scales();

  int64_t rows_, cols_;
  CodeOptions options_;
  std::vector<uint8_t> codes_;  // Nf4: 32 bytes a run, byte j holds elements j (low) and j + 32
  std::vector<float> scales_;   // plain scales; empty when they are codes themselves
  std::vector<uint8_t> scale_codes_;
  std::vector<float> scale_scales_;
  float scale_mean_ = 0;
};

}  // namespace attune::kernels
