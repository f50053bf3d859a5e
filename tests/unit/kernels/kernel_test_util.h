#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/random.h"
#include "kernels/kernels.h"

/// Shared by the kernel tests: values of each storage type, and draws of dropout made
/// independently.
namespace attune::kernels::test {

inline double value_of(float x) {
  return x;
}
inline double value_of(double x) {
  return x;
}
inline double value_of(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}
template <class T>
T to_type(double x);
template <>
inline float to_type(double x) {
  return static_cast<float>(x);
}
template <>
inline double to_type(double x) {
  return x;
}
template <>
inline bf16 to_type(double x) {
  // Nearest of the two neighbours by search, not by the bit trick under test; ties to even.
  const float f = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const uint16_t down = static_cast<uint16_t>(bits >> 16), up = static_cast<uint16_t>(down + 1);
  const double a = std::abs(value_of(bf16{down}) - f), b = std::abs(value_of(bf16{up}) - f);
  return bf16{a < b ? down : b < a ? up : (down % 2 == 0 ? down : up)};
}

template <class T>
constexpr bool kIsBf16 = sizeof(T) == 2;

/// Tolerance of one rounding of the storage type at magnitude `size`, plus `noise` for arithmetic.
template <class T>
double tolerance(double size, double noise) {
  const double rounding = kIsBf16<T> ? 1.0 / 256 : sizeof(T) == 4 ? 6e-8 : 1e-15;
  const double arithmetic = sizeof(T) == 8 ? noise * 1e-8 : noise;
  return rounding * std::abs(size) + arithmetic;
}

template <class T>
std::vector<T> randoms(uint64_t seed, int64_t count, double scale = 1) {
  const Stream64 stream(seed, "kernel test");
  std::vector<T> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    out[i] = to_type<T>(scale * stream.normal(static_cast<uint64_t>(i)));
  return out;
}
template <class T>
std::vector<double> doubles(const std::vector<T>& x) {
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = value_of(x[i]);
  return out;
}

/// Factor of one element under dropout: 0 or 1 / (1 - p), by the definition in kernels.h.
inline double drop_factor(const Dropout& drop, int64_t row, int64_t column, uint32_t stream) {
  if (!drop.on()) return 1;
  const uint64_t key = drop.row_keys[row];
  const std::array<uint32_t, 4> words =
      philox({static_cast<uint32_t>(column / 8), drop.site, stream, 0},
             {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
  const int lane = static_cast<int>(column % 8);
  const uint32_t half = lane % 2 == 0 ? words[lane / 2] & 0xffff : words[lane / 2] >> 16;
  return half >= std::lround(static_cast<double>(drop.p) * 65536)
             ? 1 / (1 - static_cast<double>(drop.p))
             : 0;
}

inline std::vector<uint64_t> row_keys(int64_t rows) {
  std::vector<uint64_t> keys(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) keys[r] = mix(77, static_cast<uint64_t>(r));
  return keys;
}

/// Runs body once per instruction set that this CPU has.
template <class Body>
void for_each_isa(const Body& body) {
  limit_isa(kBestIsa);
  const Isa best = isa();
  for (const Isa set : {Isa::Ref, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::AmxBf16}) {
    if (set > best) continue;
    limit_isa(set);
    body(isa_name(set));
  }
  limit_isa(kBestIsa);
}

}  // namespace attune::kernels::test
