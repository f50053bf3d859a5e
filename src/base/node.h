#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace attune {

/// One value of a recipe: null, scalar, list or mapping, with the place it came from, so that
/// errors can name file, line, column and key path. Copies are cheap (shared, immutable content).
class Node {
 public:
  enum class Kind { Null, Scalar, List, Map };
  struct Place {
    std::string file;          // "recipe.yaml", "--set", "default"
    int line = 0, column = 0;  // from 1; 0: none
    std::string text() const;  // "recipe.yaml:7:12" or "--set"
  };

  Node();  // null, from nowhere
  static Node null(Place place);
  static Node scalar(std::string text, bool quoted, Place place);
  static Node list(std::vector<Node> items, Place place);
  static Node map(std::vector<std::pair<std::string, Node>> entries, Place place);
  static Node from_json(const Json& value, Place place);

  Kind kind() const;
  bool is_null() const { return kind() == Kind::Null; }
  bool is_map() const { return kind() == Kind::Map; }
  bool is_list() const { return kind() == Kind::List; }
  bool is_scalar() const { return kind() == Kind::Scalar; }
  const Place& place() const;
  const std::string& text() const;         // scalar's text
  bool quoted() const;                     // scalar was in quotes: always a string
  const std::vector<Node>& items() const;  // list
  const std::vector<std::pair<std::string, Node>>& entries() const;  // map, in order
  const Node* find(std::string_view key) const;                      // map; null when absent
  std::vector<std::string> keys() const;

  /// A copy with the value at a path ("methods.0.lora.rank") replaced; missing mappings are
  /// created. Throws BadInput when a list index is out of range or a scalar stands in the way.
  Node with(std::string_view path, Node value) const;

  /// Typed readings; `path` names the value in the error ("train.lr"). Each throws BadInput:
  /// `recipe.yaml:7:12: train.lr: expected a number, found "fast"`.
  bool as_bool(std::string_view path) const;
  int64_t as_int(std::string_view path) const;
  double as_number(std::string_view path) const;
  std::string as_string(std::string_view path) const;
  std::vector<std::string> as_strings(std::string_view path) const;  // a list, or one scalar
  std::vector<double> as_numbers(std::string_view path) const;

  /// How the value reads in a message: `"fast"`, `8`, `"8" in quotes`, `a list`, `a mapping`,
  /// `nothing`.
  std::string shown() const;

  /// JSON with YAML 1.2 core-schema types (unquoted true/false/null/numbers become typed).
  Json to_json() const;

 private:
  struct Content;
  std::shared_ptr<const Content> content_;  // shared: nodes are immutable values
};

}  // namespace attune
