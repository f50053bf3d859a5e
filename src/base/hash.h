#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace attune {

/// Incremental SHA-256 (FIPS 180-4).
class Sha256 {
 public:
  Sha256();
  void add(const void* data, size_t bytes);
  void add(std::string_view text) { add(text.data(), text.size()); }
  /// Lower-case hexadecimal digest; the object must not be used afterwards.
  std::string hex();

 private:
  void block(const uint8_t* data);
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> buffer_;
  uint64_t bytes_ = 0;
};

std::string sha256_hex(std::string_view content);
/// SHA-256 of a file's content, read in pieces.
std::string sha256_file(const std::string& path);

/// CRC-32C (Castagnoli), as TFRecord uses; crc32c("123456789") = 0xe3069283.
uint32_t crc32c(std::string_view data);
/// TFRecord's masked form: rotate right by 15, add 0xa282ead8.
uint32_t masked_crc32c(std::string_view data);

}  // namespace attune
