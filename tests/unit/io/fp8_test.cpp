#include "io/fp8.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "unit/io/python_bytes.h"
#include "unit/io/safetensors_bytes.h"

namespace attune {
namespace fp8_test {

void expect_table(std::string_view dtype, std::string_view digits) {
  const std::array<float, 256> values = fp8_values(dtype);
  const std::string bytes = from_hex(digits);
  ASSERT_EQ(bytes.size(), 1024U);
  for (size_t code = 0; code < 256; ++code) {
    float expected;
    std::memcpy(&expected, bytes.data() + 4 * code, 4);
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(values[code])) << dtype << " " << code;
    else
      EXPECT_EQ(std::bit_cast<uint32_t>(values[code]), std::bit_cast<uint32_t>(expected))
          << dtype << " " << code;
  }
}

TEST(Fp8, EveryCodeEqualsTorch) {
  expect_table("F8_E5M2", kE5m2);
  expect_table("F8_E4M3", kE4m3);
  expect_table("F8_E4M3FNUZ", kE4m3fnuz);
  expect_table("F8_E5M2FNUZ", kE5m2fnuz);
  expect_table("F8_E8M0", kE8m0);
}

TEST(Fp8, OtherNamesAreOurBug) {
  try {
    fp8_values("F32");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Internal);
    EXPECT_STREQ(error.what(), "decoding fp8: \"F32\" is not an 8-bit floating point dtype");
  }
}

}  // namespace fp8_test
}  // namespace attune
