#include "kernels/quantized.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/error.h"
#include "kernels/detail/decode.h"

namespace attune::kernels {

const std::array<float, 16>& QuantizedMatrix::levels() {
  // Dettmers et al. 2023, appendix E.
  static const std::array<float, 16> kLevels = {-1.0F,
                                                -0.6961928009986877F,
                                                -0.5250730514526367F,
                                                -0.39491748809814453F,
                                                -0.28444138169288635F,
                                                -0.18477343022823334F,
                                                -0.09105003625154495F,
                                                0.0F,
                                                0.07958029955625534F,
                                                0.16093020141124725F,
                                                0.24611230194568634F,
                                                0.33791524171829224F,
                                                0.44070982933044434F,
                                                0.5626170039176941F,
                                                0.7229568362236023F,
                                                1.0F};
  return kLevels;
}

const std::array<float, 256>& QuantizedMatrix::scale_levels() {
  // Decade 10^(i - 6), i = 0..6, is cut into 2^i equal parts of [0.1, 1], whose middles are codes;
  // with both signs, and 0 and 1 once each (Dettmers 2016, "8-Bit Approximations for Parallelism in
  // Deep Learning", arXiv 1511.04561, as QLoRA's authors use it).
  static const std::array<float, 256> kLevels = [] {
    std::vector<float> all{0.0F, 1.0F};
    for (int decade = 0; decade < 7; ++decade) {
      const int parts = 1 << decade;
      for (int i = 0; i < parts; ++i) {
        const double middle = 0.1 + 0.9 * (i + 0.5) / parts;
        const float value = static_cast<float>(std::pow(10.0, decade - 6) * middle);
        all.push_back(value);
        all.push_back(-value);
      }
    }
    std::sort(all.begin(), all.end());
    std::array<float, 256> result{};
    std::copy(all.begin(), all.end(), result.begin());
    return result;
  }();
  return kLevels;
}

namespace {

/// The nearest of ascending levels; of two equally near the lower.
template <size_t kCount>
int nearest(const std::array<float, kCount>& levels, float value) {
  const auto above = std::lower_bound(levels.begin(), levels.end(), value);
  if (above == levels.begin()) return 0;
  if (above == levels.end()) return static_cast<int>(kCount) - 1;
  const int high = static_cast<int>(above - levels.begin());
  const double middle = 0.5 * (static_cast<double>(levels[high - 1]) + levels[high]);
  return static_cast<double>(value) > middle ? high : high - 1;
}

float largest(const float* values, int64_t count) {
  float top = 0;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, std::fabs(values[i]));
  return top;
}

int64_t runs_of(int64_t elements) {
  return (elements + QuantizedMatrix::kRun - 1) / QuantizedMatrix::kRun;
}

}  // namespace

QuantizedMatrix::QuantizedMatrix(const float* values, int64_t rows, int64_t cols,
                                 CodeOptions options)
    : rows_(rows), cols_(cols), options_(options) {
  for (int64_t i = 0; i < rows * cols; ++i)
    if (!std::isfinite(values[i]))
      fail(ErrorCode::BadInput,
           "a weight [{}, {}] cannot be kept as codes: the value at row {}, column {} is not a "
           "finite number",
           rows, cols, i / cols, i % cols);
  if (options.kind == CodeKind::Int8) {
    encode_rows(values);
  } else {
    encode_runs(values);
    if (options.double_scales) encode_scales();
  }
}

void QuantizedMatrix::encode_rows(const float* values) {
  codes_.resize(static_cast<size_t>(rows_ * cols_));
  scales_.resize(static_cast<size_t>(rows_));
#pragma omp parallel for schedule(static) if (rows_ * cols_ > 16384)
  for (int64_t r = 0; r < rows_; ++r) {
    const float* row = values + r * cols_;
    const float scale = largest(row, cols_) / 127.0F;
    scales_[static_cast<size_t>(r)] = scale;
    for (int64_t c = 0; c < cols_; ++c) {
      const float level = scale > 0 ? std::nearbyint(row[c] / scale) : 0.0F;
      const float kept = std::clamp(level, -127.0F, 127.0F);
      codes_[static_cast<size_t>(r * cols_ + c)] = static_cast<uint8_t>(static_cast<int8_t>(kept));
    }
  }
}

namespace {

/// Between two levels of NF4: the largest float that is not nearer to the upper one.
const std::array<float, 15>& middles() {
  static const std::array<float, 15> kMiddles = [] {
    std::array<float, 15> result{};
    for (size_t i = 0; i < result.size(); ++i) {
      const std::array<float, 16>& levels = QuantizedMatrix::levels();
      const double middle = 0.5 * (static_cast<double>(levels[i]) + levels[i + 1]);
      const float near = static_cast<float>(middle);
      result[i] = static_cast<double>(near) > middle ? std::nextafter(near, -2.0F) : near;
    }
    return result;
  }();
  return kMiddles;
}

/// The nearest levels of one run's values over their scale; of two equally near the lower.
void nearest_levels(const float* values, int64_t count, float scale, uint8_t* level) {
  float ratio[QuantizedMatrix::kRun] = {};
  int32_t above[QuantizedMatrix::kRun] = {};
  for (int64_t i = 0; i < count; ++i) ratio[i] = values[i] / scale;
  for (const float middle : middles())
    for (int64_t i = 0; i < QuantizedMatrix::kRun; ++i) above[i] += ratio[i] > middle ? 1 : 0;
  for (int64_t i = 0; i < count; ++i) level[i] = static_cast<uint8_t>(above[i]);
}

}  // namespace

void QuantizedMatrix::encode_runs(const float* values) {
  const int64_t elements = rows_ * cols_, runs = runs_of(elements);
  codes_.resize(static_cast<size_t>(runs * kRun / 2));
  scales_.resize(static_cast<size_t>(runs));
#pragma omp parallel for schedule(static) if (elements > 16384)
  for (int64_t r = 0; r < runs; ++r) {
    const int64_t begin = r * kRun, count = std::min(kRun, elements - begin);
    const float scale = largest(values + begin, count);
    scales_[static_cast<size_t>(r)] = scale;
    uint8_t level[kRun];
    std::fill(level, level + kRun, uint8_t{7});  // 0
    if (scale > 0) nearest_levels(values + begin, count, scale, level);
    for (int64_t i = 0; i < kRun / 2; ++i)
      codes_[static_cast<size_t>(r * kRun / 2 + i)] =
          static_cast<uint8_t>(level[i] | level[i + kRun / 2] << 4);
  }
}

void QuantizedMatrix::encode_scales() {
  const int64_t runs = static_cast<int64_t>(scales_.size());
  double sum = 0;
  for (const float scale : scales_) sum += static_cast<double>(scale);
  scale_mean_ = runs > 0 ? static_cast<float>(sum / static_cast<double>(runs)) : 0.0F;
  scale_codes_.resize(scales_.size());
  for (int64_t begin = 0; begin < runs; begin += kScaleRun) {
    const int64_t end = std::min(runs, begin + kScaleRun);
    float top = 0;
    for (int64_t i = begin; i < end; ++i) top = std::max(top, std::fabs(scales_[i] - scale_mean_));
    scale_scales_.push_back(top);
    for (int64_t i = begin; i < end; ++i)
      scale_codes_[i] = static_cast<uint8_t>(
          nearest(scale_levels(), top > 0 ? (scales_[i] - scale_mean_) / top : 0.0F));
  }
  scales_.clear();
  scales_.shrink_to_fit();
}

std::vector<float> QuantizedMatrix::scales() const {
  if (scale_codes_.empty()) return scales_;
  std::vector<float> result(scale_codes_.size());
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = scale_levels()[scale_codes_[i]] * scale_scales_[i / kScaleRun] + scale_mean_;
  return result;
}

int QuantizedMatrix::code(int64_t element) const {
  if (options_.kind == CodeKind::Int8)
    return static_cast<int8_t>(codes_[static_cast<size_t>(element)]);
  const int64_t run = element / kRun, i = element % kRun;
  const uint8_t byte = codes_[static_cast<size_t>(run * kRun / 2 + i % 32)];
  return i < 32 ? byte & 15 : byte >> 4;
}

int64_t QuantizedMatrix::bytes() const {
  return static_cast<int64_t>(codes_.size() + scale_codes_.size() +
                              sizeof(float) * (scales_.size() + scale_scales_.size()) +
                              (scale_codes_.empty() ? 0 : sizeof(float)));
}

namespace {

template <class T>
void decode_runs(const uint8_t* codes, const float* scales, int64_t runs, T* out) {
  const float* levels = QuantizedMatrix::levels().data();
  if constexpr (!std::is_same_v<T, double>)
    if (isa() >= Isa::Avx512) return detail::decode_runs_avx512(levels, codes, scales, runs, out);
  detail::decode_runs_ref(levels, codes, scales, runs, out);
}

template <class T>
void decode_bytes(const int8_t* codes, float scale, int64_t count, T* out) {
  if constexpr (!std::is_same_v<T, double>)
    if (isa() >= Isa::Avx512) return detail::decode_bytes_avx512(codes, scale, count, out);
  detail::decode_bytes_ref(codes, scale, count, out);
}

/// count values at a time keep both threads' work in their caches.
constexpr int64_t kChunkRuns = 256;

}  // namespace

template <class T>
void QuantizedMatrix::decode(T* out) const {
  const std::vector<float> scale = scales();
  if (options_.kind == CodeKind::Int8) {
#pragma omp parallel for schedule(static) if (rows_ * cols_ > 16384)
    for (int64_t r = 0; r < rows_; ++r)
      decode_bytes(reinterpret_cast<const int8_t*>(codes_.data()) + r * cols_,
                   scale[static_cast<size_t>(r)], cols_, out + r * cols_);
    return;
  }
  const int64_t elements = rows_ * cols_, whole = elements / kRun;
#pragma omp parallel for schedule(static) if (elements > 16384)
  for (int64_t begin = 0; begin < whole; begin += kChunkRuns)
    decode_runs(codes_.data() + begin * kRun / 2, scale.data() + begin,
                std::min(kChunkRuns, whole - begin), out + begin * kRun);
  if (whole * kRun == elements) return;
  T last[kRun];
  decode_runs(codes_.data() + whole * kRun / 2, scale.data() + whole, 1, last);
  std::copy(last, last + (elements - whole * kRun), out + whole * kRun);
}

void QuantizedMatrix::decode_tile(const float* scales, int64_t row, int64_t col, bf16* out) const {
  const int64_t rows = std::clamp<int64_t>(rows_ - row, 0, kTile),
                cols = std::clamp<int64_t>(cols_ - col, 0, kTile);
  if (rows < kTile || cols < kTile) std::fill(out, out + kTile * kTile, bf16{0});
  if (cols == 0) return;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = (row + r) * cols_ + col;
    if (options_.kind == CodeKind::Int8)
      detail::decode_bytes_avx512(reinterpret_cast<const int8_t*>(codes_.data()) + at,
                                  scales[row + r], cols, out + r * kTile);
    else
      detail::decode_runs_avx512(levels().data(), codes_.data() + at / 2, scales + at / kRun, 1,
                                 out + r * kTile);
  }
}

template void QuantizedMatrix::decode(float*) const;
template void QuantizedMatrix::decode(double*) const;
template void QuantizedMatrix::decode(bf16*) const;

}  // namespace attune::kernels
