#include "kernels/quantized.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "base/error.h"
#include "kernel_test_util.h"
#include "kernels/gemm.h"

namespace attune::kernels {
namespace quantized_test {
using namespace test;

std::vector<float> decoded(const QuantizedMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows() * matrix.cols()));
  matrix.decode(values.data());
  return values;
}

CodeOptions nf4(bool double_scales) {
  return {CodeKind::Nf4, double_scales};
}

/// Phi^-1 by bisection on the error function.
double normal_quantile(double p) {
  double low = -10, high = 10;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low;
}

TEST(Nf4, HasTheNormalQuantileLevelsOfThePaper) {
  // Eight positive quantiles and seven negative ones, both from 0.5 to the offset, and 0.
  const double offset = 0.9677083;
  std::vector<double> expected{0};
  for (int i = 0; i < 8; ++i) expected.push_back(normal_quantile(offset + (0.5 - offset) * i / 8));
  for (int i = 0; i < 7; ++i) expected.push_back(-normal_quantile(offset + (0.5 - offset) * i / 7));
  std::sort(expected.begin(), expected.end());
  const double top = expected.back();
  const auto& levels = QuantizedMatrix::levels();
  for (size_t i = 0; i < 16; ++i)
    EXPECT_NEAR(static_cast<double>(levels[i]), expected[i] / top, 2e-6) << i;
  EXPECT_EQ(levels[0], -1.0F);
  EXPECT_EQ(levels[7], 0.0F);
  EXPECT_EQ(levels[15], 1.0F);
}

TEST(Nf4, CodesOfTheLevelsThemselvesComeBack) {
  std::vector<float> values;
  for (int run = 0; run < 4; ++run)
    for (int i = 0; i < 64; ++i) values.push_back(QuantizedMatrix::levels()[i % 16] * 0.75F);
  const QuantizedMatrix matrix(values.data(), 4, 64, nf4(false));
  for (int64_t i = 0; i < 256; ++i) EXPECT_EQ(matrix.code(i), i % 16);
  EXPECT_EQ(decoded(matrix), values);
  const std::vector<float> again = decoded(matrix);
  const QuantizedMatrix twice(again.data(), 4, 64, nf4(false));
  for (int64_t i = 0; i < 256; ++i) EXPECT_EQ(twice.code(i), matrix.code(i));
}

TEST(Nf4, TheLargestValueOfARunIsExactAndErrorsAreBoundedByHalfTheLargestGap) {
  for (const int64_t cols : {64, 100, 7, 384}) {
    const int64_t rows = 11, count = rows * cols;
    const std::vector<float> values = randoms<float>(3, count, 0.05);
    const std::vector<float> back = decoded(QuantizedMatrix(values.data(), rows, cols, nf4(false)));
    double gap = 0;
    for (size_t i = 1; i < 16; ++i)
      gap = std::max(gap, static_cast<double>(QuantizedMatrix::levels()[i]) -
                              QuantizedMatrix::levels()[i - 1]);
    for (int64_t begin = 0; begin < count; begin += 64) {
      const int64_t end = std::min(count, begin + 64);
      int64_t top = begin;
      for (int64_t i = begin; i < end; ++i)
        if (std::fabs(values[i]) > std::fabs(values[top])) top = i;
      EXPECT_EQ(back[top], values[top]);
      for (int64_t i = begin; i < end; ++i)
        EXPECT_LE(std::fabs(back[i] - values[i]), gap / 2 * std::fabs(values[top]) * (1 + 1e-6))
            << i;
    }
  }
}

TEST(Nf4, EveryValueTakesItsNearestLevel) {
  const std::vector<float> values = randoms<float>(5, 640, 1);
  const QuantizedMatrix matrix(values.data(), 10, 64, nf4(false));
  const std::vector<float> scales = matrix.scales();
  for (int64_t i = 0; i < 640; ++i) {
    const double x = static_cast<double>(values[i]) / scales[i / 64];
    double best = 10;
    for (const float level : QuantizedMatrix::levels()) best = std::min(best, std::fabs(level - x));
    EXPECT_NEAR(std::fabs(QuantizedMatrix::levels()[matrix.code(i)] - x), best, 1e-6) << i;
  }
}

TEST(DoubleQuantisation, KeepsScalesWithinHalfAGapOfTheirCode) {
  const int64_t rows = 300, cols = 128;
  std::vector<float> values = randoms<float>(7, rows * cols, 1);
  for (int64_t i = 0; i < rows * cols; ++i) values[i] *= 0.02F + 0.001F * (i / 4096);
  const std::vector<float> exact = QuantizedMatrix(values.data(), rows, cols, nf4(false)).scales();
  const QuantizedMatrix matrix(values.data(), rows, cols, nf4(true));
  const std::vector<float> found = matrix.scales();
  ASSERT_EQ(found.size(), exact.size());
  double mean = 0;
  for (const float scale : exact) mean += scale / static_cast<double>(exact.size());
  const auto& levels = QuantizedMatrix::scale_levels();
  double gap = 0;
  for (size_t i = 1; i < levels.size(); ++i)
    gap = std::max(gap, static_cast<double>(levels[i]) - levels[i - 1]);
  for (size_t begin = 0; begin < exact.size(); begin += 256) {
    const size_t end = std::min(exact.size(), begin + 256);
    double top = 0;
    for (size_t i = begin; i < end; ++i) top = std::max(top, std::fabs(exact[i] - mean));
    for (size_t i = begin; i < end; ++i)
      EXPECT_LE(std::fabs(found[i] - exact[i]), gap / 2 * top * 1.001 + 1e-7) << i;
  }
}

TEST(DoubleQuantisation, TakesFourAndAnEighthBitsAWeight) {
  const int64_t rows = 1024, cols = 1024;
  const std::vector<float> values = randoms<float>(8, rows * cols, 1);
  const double bits = 8.0 / static_cast<double>(rows * cols);
  // 4 + 8 / 64 + 32 / (64 * 256) bits; one mean a matrix.
  EXPECT_NEAR(bits * QuantizedMatrix(values.data(), rows, cols, nf4(true)).bytes(),
              4 + 8.0 / 64 + 32.0 / (64 * 256), 1e-4);
  EXPECT_NEAR(bits * QuantizedMatrix(values.data(), rows, cols, nf4(false)).bytes(), 4.5, 1e-9);
}

TEST(ScaleLevels, AreTwoHundredAndFiftySixDistinctValuesWithZeroAndOne) {
  const auto& levels = QuantizedMatrix::scale_levels();
  EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
  EXPECT_EQ(std::adjacent_find(levels.begin(), levels.end()), levels.end());
  EXPECT_EQ(levels.back(), 1.0F);
  EXPECT_EQ(std::count(levels.begin(), levels.end(), 0.0F), 1);
  EXPECT_NEAR(levels[254], 0.1 + 0.9 * 63.5 / 64, 1e-6);  // the last of 64 parts of the top decade
}

TEST(Int8, RoundsRowsByTheirLargestValue) {
  const int64_t rows = 9, cols = 37;
  std::vector<float> values = randoms<float>(11, rows * cols, 0.1);
  for (int64_t c = 0; c < cols; ++c) values[4 * cols + c] = 0;  // a row of zeros
  const QuantizedMatrix matrix(values.data(), rows, cols, {CodeKind::Int8, true});
  const std::vector<float> back = decoded(matrix);
  for (int64_t r = 0; r < rows; ++r) {
    float top = 0;
    for (int64_t c = 0; c < cols; ++c) top = std::max(top, std::fabs(values[r * cols + c]));
    for (int64_t c = 0; c < cols; ++c)
      EXPECT_LE(std::fabs(back[r * cols + c] - values[r * cols + c]), top / 254 * 1.0001);
  }
  EXPECT_EQ(matrix.bytes(), rows * cols + rows * 4);
}

/// The lower instruction sets and types give the same numbers.
TEST(QuantizedMatrixDecode, AgreesOverInstructionSetsAndTypes) {
  for (const int64_t cols : {64, 65, 200}) {
    const int64_t rows = 130, count = rows * cols;
    const std::vector<float> values = randoms<float>(13, count, 0.3);
    for (const CodeOptions& options : {nf4(true), nf4(false), CodeOptions{CodeKind::Int8, true}}) {
      const QuantizedMatrix matrix(values.data(), rows, cols, options);
      limit_isa(Isa::Ref);
      const std::vector<float> reference = decoded(matrix);
      std::vector<bf16> half_reference(static_cast<size_t>(count));
      matrix.decode(half_reference.data());
      limit_isa(kBestIsa);
      EXPECT_EQ(decoded(matrix), reference);
      std::vector<bf16> half(static_cast<size_t>(count));
      matrix.decode(half.data());
      std::vector<double> wide(static_cast<size_t>(count));
      matrix.decode(wide.data());
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(half[i].bits, half_reference[i].bits);
        EXPECT_EQ(half[i].bits, to_type<bf16>(reference[i]).bits);
        EXPECT_EQ(wide[i], static_cast<double>(reference[i]));
      }
    }
  }
}

/// What is decoded straight into oneDNN's layout multiplies as the decoded values packed do.
TEST(QuantizedMatrixDecode, IntoThePackedLayoutIsPackingWhatWasDecoded) {
  for (const int64_t cols : {64, 192, 200})
    for (const int64_t rows : {64, 130, 96})
      for (const CodeOptions& options : {nf4(true), CodeOptions{CodeKind::Int8, true}}) {
        const std::vector<float> values = randoms<float>(17, rows * cols, 0.3);
        const QuantizedMatrix matrix(values.data(), rows, cols, options);
        std::vector<bf16> dense(static_cast<size_t>(rows * cols));
        matrix.decode(dense.data());
        for (const bool transposed : {false, true}) {
          const int64_t k = transposed ? cols : rows, n = transposed ? rows : cols, m = 48;
          PackedMatrix packed({dense.data(), DType::BF16, rows, cols, transposed}, DType::BF16);
          PackedMatrix straight = PackedMatrix::unfilled(k, n, DType::BF16);
          if (!straight.fill_decoded(matrix, transposed)) {
            EXPECT_TRUE(!has_native_bf16() || !matrix.has_tiles());
            continue;
          }
          const std::vector<bf16> a = randoms<bf16>(18, m * k);
          std::vector<float> wanted(static_cast<size_t>(m * n)), got = wanted;
          gemm({a.data(), DType::BF16, m, k, false}, packed, {wanted.data(), DType::F32, m, n},
               nullptr, false);
          gemm({a.data(), DType::BF16, m, k, false}, straight, {got.data(), DType::F32, m, n},
               nullptr, false);
          EXPECT_EQ(got, wanted) << rows << " x " << cols << (transposed ? " turned" : "");
        }
      }
}

TEST(QuantizedMatrix, RefusesValuesThatAreNotFinite) {
  std::vector<float> values(12, 1.0F);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  try {
    const QuantizedMatrix matrix(values.data(), 3, 4, nf4(true));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_NE(std::string(error.what()).find("row 1, column 3"), std::string::npos);
  }
}

}  // namespace quantized_test
}  // namespace attune::kernels
