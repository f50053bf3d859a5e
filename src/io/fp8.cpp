#include "io/fp8.h"

#include <cmath>
#include <limits>

#include "base/error.h"

namespace attune {

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Sign, exponent, mantissa with gradual underflow; every code is taken for a number.
float plain(int code, int mantissa_bits, int bias) {
  const int exponent = (code & 0x7f) >> mantissa_bits;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const int full = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  const float size =
      std::ldexp(static_cast<float>(full), (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
  return code & 0x80 ? -size : size;
}

float e5m2(int code) {
  const int size = code & 0x7f;
  if (size > 0x7c) return kNan;
  if (size == 0x7c)
    return std::copysign(std::numeric_limits<float>::infinity(), code & 0x80 ? -1.0f : 1.0f);
  return plain(code, 2, 15);
}

}  // namespace

std::array<float, 256> fp8_values(std::string_view dtype) {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) {
    float& value = values[static_cast<size_t>(code)];
    if (dtype == "F8_E5M2")
      value = e5m2(code);
    else if (dtype == "F8_E4M3")
      value = (code & 0x7f) == 0x7f ? kNan : plain(code, 3, 7);
    else if (dtype == "F8_E4M3FNUZ")
      value = code == 0x80 ? kNan : plain(code, 3, 8);
    else if (dtype == "F8_E5M2FNUZ")
      value = code == 0x80 ? kNan : plain(code, 2, 16);
    else if (dtype == "F8_E8M0")
      value = code == 255 ? kNan : std::ldexp(1.0f, code - 127);
    else
      fail(ErrorCode::Internal, "decoding fp8: \"{}\" is not an 8-bit floating point dtype", dtype);
  }
  return values;
}

}  // namespace attune
