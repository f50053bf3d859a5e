#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace attune::byte_level {
namespace {

constexpr bool is_printable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char16_t, 256> make_chars() {
  std::array<char16_t, 256> out{};
  char16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    out[size_t(byte)] = is_printable(byte) ? char16_t(byte) : next++;
  }
  return out;
}
constexpr std::array<char16_t, 256> kChars = make_chars();

constexpr std::array<int16_t, 0x144> make_bytes() {
  std::array<int16_t, 0x144> out{};
  for (int16_t& byte : out) byte = -1;
  for (int byte = 0; byte < 256; ++byte) out[kChars[size_t(byte)]] = int16_t(byte);
  return out;
}
constexpr std::array<int16_t, 0x144> kBytes = make_bytes();

}  // namespace

char32_t to_char(uint8_t byte) {
  return kChars[byte];
}

int to_byte(char32_t c) {
  return c < kBytes.size() ? kBytes[c] : -1;
}

std::string encode(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) unicode::append(out, kChars[uint8_t(byte)]);
  return out;
}

}  // namespace attune::byte_level
