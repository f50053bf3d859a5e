#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace attune {

/// adapter_config.json, read field by field. Errors: Corrupt, naming the file, the field and its
/// value, for a value that PEFT does not write there.
class PeftConfig {
 public:
  PeftConfig(Json json, std::string path) : json_(std::move(json)), path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  const Json& json() const { return json_; }

  /// There, and not null.
  bool given(const char* field) const;
  bool flag(const char* field, bool fallback) const;
  int64_t integer(const char* field, int64_t fallback) const;
  int64_t positive(const char* field, int64_t fallback) const;  // at least 1
  double number(const char* field, double fallback) const;
  std::string text(const char* field, const std::string& fallback) const;
  std::vector<std::string> texts(const char* field) const;  // one or a list
  std::vector<int64_t> integers(const char* field) const;   // one or a list
  bool is_text(const char* field) const;
  /// The keys and values of an object; none when the field is not there.
  std::vector<std::pair<std::string, Json>> entries(const char* field) const;

  /// How a key of a pattern field names a module: `WholeOrTail` "query" and "bert.query" both name
  /// the module bert.query; `Tail` only what follows a dot counts, and alternatives are not
  /// grouped.
  enum class Match { WholeOrTail, Tail };
  /// The number that a pattern field gives a module: that of the first key which matches its name.
  double by_pattern(const char* field, const std::string& module, double fallback,
                    Match match = Match::WholeOrTail) const;

  [[noreturn]] void wrong(const char* field) const;
  /// Errors: Unsupported: the field, its value and why.
  [[noreturn]] void refuse(const char* field, const std::string& why) const;
  /// Errors: Unsupported for a field that is not among `known` and whose value is not "not used".
  void refuse_unknown(const std::vector<std::string>& known) const;

 private:
  const Json& at(const char* field) const { return json_.at(field); }
  Json json_;
  std::string path_;
};

/// Which modules an adapter changes, as PEFT decides it.
class PeftTargets {
 public:
  explicit PeftTargets(const PeftConfig& config);
  /// target_modules is "all-linear": every projection but the output layer.
  bool all_linear() const { return all_linear_; }
  bool contain(const std::string& module) const;
  /// modules_to_save names it, or a module that it is inside.
  bool saved(const std::string& module) const;
  /// The rows of a module that trainable_token_indices names, in its order. Errors: Corrupt.
  std::vector<int64_t> token_rows(const std::string& module) const;

 private:
  bool excluded(const std::string& module) const;
  bool in_layers(const std::string& module) const;
  PeftConfig config_;
  std::string path_;
  bool all_linear_ = false;
  std::string expression_, exclude_expression_;  // when the field is one expression
  std::vector<std::string> names_, exclude_names_, saved_, layer_patterns_;
  std::vector<int64_t> layers_;  // empty: all
};

}  // namespace attune
