#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attune {

/// One value inside a tokenizer file together with its place, so that every error names file and
/// field.
class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string file, std::string path)
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& file() const { return file_; }
  bool is_null() const { return value_->is_null(); }
  bool has(std::string_view key) const;  // present and not null
  /// "tokenizer.json: normalizer.normalizers[1]"
  std::string where() const;

  /// Throws Corrupt when this is no object or the key is missing.
  JsonView at(std::string_view key) const;
  std::vector<JsonView> items() const;                            // array
  std::vector<std::pair<std::string, JsonView>> entries() const;  // object
  std::string as_string() const;
  bool as_bool() const;
  int64_t as_int() const;
  bool flag(std::string_view key, bool fallback) const;  // fallback when missing or null
  std::string text(std::string_view key, std::string_view fallback) const;

 private:
  [[noreturn]] void wrong(const char* expected) const;
  const nlohmann::json* value_;
  std::string file_, path_;
};

}  // namespace attune
