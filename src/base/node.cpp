#include "base/node.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/text.h"

namespace attune {

struct Node::Content {
  Kind kind = Kind::Null;
  Place place;
  std::string text;
  bool quoted = false;
  std::vector<Node> items;
  std::vector<std::pair<std::string, Node>> entries;
};

std::string Node::Place::text() const {
  if (line <= 0) return file;
  return format("{}:{}:{}", file, line, column);
}

Node::Node() {
  static const std::shared_ptr<const Content> kNull = std::make_shared<const Content>();
  content_ = kNull;
}

Node Node::null(Place place) {
  Content content;
  content.place = std::move(place);
  Node node;
  node.content_ = std::make_shared<const Content>(std::move(content));
  return node;
}

Node Node::scalar(std::string text, bool quoted, Place place) {
  Content content{Kind::Scalar, std::move(place), std::move(text), quoted, {}, {}};
  Node node;
  node.content_ = std::make_shared<const Content>(std::move(content));
  return node;
}

Node Node::list(std::vector<Node> items, Place place) {
  Content content{Kind::List, std::move(place), {}, false, std::move(items), {}};
  Node node;
  node.content_ = std::make_shared<const Content>(std::move(content));
  return node;
}

Node Node::map(std::vector<std::pair<std::string, Node>> entries, Place place) {
  Content content{Kind::Map, std::move(place), {}, false, {}, std::move(entries)};
  Node node;
  node.content_ = std::make_shared<const Content>(std::move(content));
  return node;
}

Node Node::from_json(const Json& value, Place place) {
  if (value.is_null()) return null(std::move(place));
  if (value.is_string()) return scalar(value.get<std::string>(), true, std::move(place));
  if (value.is_array()) {
    std::vector<Node> items;
    for (const Json& item : value) items.push_back(from_json(item, place));
    return list(std::move(items), std::move(place));
  }
  if (value.is_object()) {
    std::vector<std::pair<std::string, Node>> entries;
    for (const auto& [key, item] : value.items()) entries.emplace_back(key, from_json(item, place));
    return map(std::move(entries), std::move(place));
  }
  return scalar(value.dump(), false, std::move(place));
}

Node::Kind Node::kind() const {
  return content_->kind;
}
const Node::Place& Node::place() const {
  return content_->place;
}
const std::string& Node::text() const {
  return content_->text;
}
bool Node::quoted() const {
  return content_->quoted;
}
const std::vector<Node>& Node::items() const {
  return content_->items;
}
const std::vector<std::pair<std::string, Node>>& Node::entries() const {
  return content_->entries;
}

const Node* Node::find(std::string_view key) const {
  for (const auto& [name, value] : content_->entries)
    if (name == key) return &value;
  return nullptr;
}

std::vector<std::string> Node::keys() const {
  std::vector<std::string> result;
  for (const auto& [name, value] : content_->entries) result.push_back(name);
  return result;
}

namespace {

/// YAML 1.2 core schema: [-+]?[0-9]+ | 0o[0-7]+ | 0x[0-9a-fA-F]+.
std::optional<int64_t> parse_int(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0o")) {
    base = text[1] == 'x' ? 16 : 8;
    text.remove_prefix(2);
    if (text.empty() || text.front() == '-') return std::nullopt;
  } else if (text.starts_with("+")) {
    text.remove_prefix(1);
    if (text.empty() || text.front() == '-') return std::nullopt;
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// YAML 1.2 core schema: decimal or exponent form, .inf, .nan; also "inf" is not a number there.
std::optional<double> parse_number(std::string_view text) {
  if (const std::optional<int64_t> whole = parse_int(text)) return static_cast<double>(*whole);
  std::string_view bare = text;
  const bool negative = bare.starts_with("-");
  if (bare.starts_with("-") || bare.starts_with("+")) bare.remove_prefix(1);
  if (bare == ".inf" || bare == ".Inf" || bare == ".INF") {
    const double infinity = std::numeric_limits<double>::infinity();
    return negative ? -infinity : infinity;
  }
  if (text == ".nan" || text == ".NaN" || text == ".NAN")
    return std::numeric_limits<double>::quiet_NaN();
  // from_chars reads "inf", "nan" and hexadecimal digits of its own; only digits and a point may
  // begin here.
  if (bare.empty() || !(bare.front() == '.' || (bare.front() >= '0' && bare.front() <= '9')))
    return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(bare.data(), bare.data() + bare.size(), value);
  if (error != std::errc() || end != bare.data() + bare.size()) return std::nullopt;
  return negative ? -value : value;
}

std::optional<bool> parse_bool(std::string_view text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

bool is_null_text(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

std::optional<size_t> parse_index(std::string_view text) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

[[noreturn]] void wrong(const Node& node, std::string_view path, std::string_view expected) {
  const std::string place = node.place().text();
  fail(ErrorCode::BadInput, "{}{}{}: expected {}, found {}", place, place.empty() ? "" : ": ", path,
       expected, node.shown());
}

Node with_at(const Node& node, const std::vector<std::string>& path, size_t depth,
             const Node& value) {
  if (depth == path.size()) return value;
  const std::string& key = path[depth];
  const std::string so_far = join(
      std::vector<std::string>(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(depth)),
      ".");
  if (node.is_list()) {
    const std::optional<size_t> index = parse_index(key);
    if (!index || *index >= node.items().size())
      fail(ErrorCode::BadInput,
           "setting {}: {} has {} items, so after it a number from 0 to {} is expected, found "
           "\"{}\"",
           join(path, "."), so_far, node.items().size(),
           static_cast<int64_t>(node.items().size()) - 1, key);
    std::vector<Node> items = node.items();
    items[*index] = with_at(items[*index], path, depth + 1, value);
    return Node::list(std::move(items), node.place());
  }
  std::vector<std::pair<std::string, Node>> entries = node.entries();
  if (node.is_scalar()) {
    // A bare name stands for the name with default options: "lora" is {lora: {}}.
    if (node.text() != key || depth + 1 == path.size())
      fail(ErrorCode::BadInput, "setting {}: {} is {}, which has no \"{}\" inside", join(path, "."),
           so_far, node.shown(), key);
    entries.emplace_back(key, Node());
  }
  for (auto& [name, child] : entries) {
    if (name != key) continue;
    child = with_at(child, path, depth + 1, value);
    return Node::map(std::move(entries), node.place());
  }
  entries.emplace_back(key, with_at(Node(), path, depth + 1, value));
  return Node::map(std::move(entries), node.is_null() ? value.place() : node.place());
}

}  // namespace

Node Node::with(std::string_view path, Node value) const {
  const std::vector<std::string> parts = split(path, '.');
  for (const std::string& part : parts)
    if (part.empty())
      fail(
          ErrorCode::BadInput,
          "setting \"{}\": a path is names and numbers joined by dots, such as methods.0.lora.rank",
          path);
  return with_at(*this, parts, 0, value);
}

std::string Node::shown() const {
  switch (kind()) {
    case Kind::Null:
      return "nothing";
    case Kind::List:
      return "a list";
    case Kind::Map:
      return "a mapping";
    case Kind::Scalar:
      break;
  }
  const bool number = parse_number(text()).has_value();
  if (!quoted() && number) return text();
  return format("\"{}\"{}", text(), number ? " in quotes" : "");
}

bool Node::as_bool(std::string_view path) const {
  if (is_scalar() && !quoted())
    if (const std::optional<bool> value = parse_bool(text())) return *value;
  wrong(*this, path, "true or false");
}

int64_t Node::as_int(std::string_view path) const {
  if (is_scalar() && !quoted())
    if (const std::optional<int64_t> value = parse_int(text())) return *value;
  wrong(*this, path, "an integer");
}

double Node::as_number(std::string_view path) const {
  if (is_scalar() && !quoted())
    if (const std::optional<double> value = parse_number(text())) return *value;
  wrong(*this, path, "a number");
}

std::string Node::as_string(std::string_view path) const {
  if (!is_scalar()) wrong(*this, path, "a text");
  return text();
}

std::vector<std::string> Node::as_strings(std::string_view path) const {
  if (is_scalar()) return {text()};
  if (!is_list()) wrong(*this, path, "a list of texts");
  std::vector<std::string> result;
  for (size_t i = 0; i < items().size(); ++i)
    result.push_back(items()[i].as_string(format("{}[{}]", path, i)));
  return result;
}

std::vector<double> Node::as_numbers(std::string_view path) const {
  if (is_scalar()) return {as_number(path)};
  if (!is_list()) wrong(*this, path, "a list of numbers");
  std::vector<double> result;
  for (size_t i = 0; i < items().size(); ++i)
    result.push_back(items()[i].as_number(format("{}[{}]", path, i)));
  return result;
}

Json Node::to_json() const {
  switch (kind()) {
    case Kind::Null:
      return nullptr;
    case Kind::List: {
      Json result = Json::array();
      for (const Node& item : items()) result.push_back(item.to_json());
      return result;
    }
    case Kind::Map: {
      Json result = Json::object();
      for (const auto& [key, value] : entries()) result[key] = value.to_json();
      return result;
    }
    case Kind::Scalar:
      break;
  }
  if (quoted()) return text();
  if (is_null_text(text())) return nullptr;
  if (const std::optional<bool> value = parse_bool(text())) return *value;
  if (const std::optional<int64_t> value = parse_int(text())) return *value;
  if (const std::optional<double> value = parse_number(text())) return *value;
  return text();
}

}  // namespace attune
