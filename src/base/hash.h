#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // OpenSSL's digest

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
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string sha256_hex(std::string_view content);
/// SHA-256 of a file's content, read in pieces.
std::string sha256_file(const std::string& path);

/// CRC-32C (Castagnoli), as TFRecord uses; crc32c("123456789") = 0xe3069283.
uint32_t crc32c(std::string_view data);
/// TFRecord's masked form: rotate right by 15, add 0xa282ead8.
uint32_t masked_crc32c(std::string_view data);

}  // namespace attune
