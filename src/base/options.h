#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/node.h"

namespace attune {

/// One option of a registered thing, declared as data: checks, help, docs and completions read it.
/// kind: "bool", "int", "number", "string", "choice", "list" (of strings), "numbers", "globs",
/// "map", "any". fallback: the default as YAML text ("8", "auto", "[]"); "required" when there is
/// none. A value equal to the fallback is always accepted, so a number may have the fallback
/// "auto". range: "" (any), "a|b|c" for a choice, or interval notation "[0, 1)", "[1, inf)", "(0,
/// inf)" for numbers.
struct Option {
  std::string name, kind, fallback, range, help;
};

/// A checked view of one mapping: only declared keys, of the declared kinds and ranges, defaults
/// filled in.
class Options {
 public:
  Options() = default;
  /// Checks `given` (a map, or null for all defaults) against the declaration. `path` leads every
  /// message: `recipe.yaml:7:12: methods[0].lora.rnak: unknown key; did you mean "rank"?`. Throws
  /// BadInput.
  Options(const std::vector<Option>& declared, const Node& given, std::string path);

  /// T: bool, int, int64_t, double, std::string, std::vector<std::string>, std::vector<double>,
  /// Node.
  template <class T>
  T get(std::string_view key) const;
  bool given(std::string_view key) const;  // stated by the user, not a default
  const Node& node(std::string_view key) const;
  const std::string& path() const { return path_; }
  Node::Place place(std::string_view key) const;
  /// "recipe.yaml:7:12: methods[0].lora.rank" for a message about this key's value.
  std::string where(std::string_view key) const;
  /// Every option with its value, defaults included, in declared order.
  Json to_json() const;

 private:
  const Node& value(std::string_view key) const;  // Internal when undeclared: our bug
  std::vector<std::pair<std::string, Node>> values_;
  std::vector<std::string> kinds_;  // beside values_
  std::vector<std::string> given_;
  std::string path_;
};

template <>
bool Options::get<bool>(std::string_view key) const;
template <>
int Options::get<int>(std::string_view key) const;
template <>
int64_t Options::get<int64_t>(std::string_view key) const;
template <>
double Options::get<double>(std::string_view key) const;
template <>
std::string Options::get<std::string>(std::string_view key) const;
template <>
std::vector<std::string> Options::get<std::vector<std::string>>(std::string_view key) const;
template <>
std::vector<double> Options::get<std::vector<double>>(std::string_view key) const;
template <>
Node Options::get<Node>(std::string_view key) const;

}  // namespace attune
