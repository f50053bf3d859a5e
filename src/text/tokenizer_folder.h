#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/hash.h"
#include "text/added_tokens.h"
#include "text/json_view.h"

namespace attune {

/// Reads the files of one folder and hashes them on the way.
class TokenizerFolder {
 public:
  /// Reads tokenizer_config.json and special_tokens_map.json where present.
  explicit TokenizerFolder(std::string dir);
  TokenizerFolder(const TokenizerFolder&) = delete;
  TokenizerFolder& operator=(const TokenizerFolder&) = delete;

  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  bool has(const std::string& name) const;
  std::string read(const std::string& name);
  /// An empty object when the file does not exist. Throws Corrupt when it holds something else.
  nlohmann::json read_object(const std::string& name);
  /// The two files; empty objects when absent.
  const JsonView& config() const { return config_; }
  const JsonView& map() const { return map_; }
  const std::string& dir() const { return dir_; }
  std::string fingerprint() { return hash_.hex(); }

 private:
  std::string dir_;
  Sha256 hash_;
  nlohmann::json config_json_, map_json_;
  JsonView config_, map_;
};

/// Reads {"content": ..., "lstrip": ...}; what is missing is false, but `normalized` the opposite
/// of `special`. Throws Corrupt for an id that cannot be one.
AddedToken read_added_token(const JsonView& item, int64_t id);
/// Reads the value of a special token: such an object, or a string. It is special and, when nothing
/// else is said, not normalised.
AddedToken read_special_token(const JsonView& value);
/// The entries of added_tokens_decoder, by id.
std::vector<AddedToken> read_added_tokens_decoder(const JsonView& config);

}  // namespace attune
