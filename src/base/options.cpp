#include "base/options.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/text.h"

namespace attune {

namespace {

/// Reads the small flow YAML of declared defaults: scalars, [a, b], {k: v}, 'quoted' and "quoted".
class FlowReader {
 public:
  explicit FlowReader(std::string_view text) : text_(text) {}

  Node read() {
    skip();
    if (at_ == text_.size()) return Node();
    Node node = value(/*inside=*/false);
    skip();
    ATTUNE_ASSERT(at_ == text_.size());
    return node;
  }

 private:
  static Node::Place place() { return {"default", 0, 0}; }
  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string scalar_text(bool inside, bool& quoted) {
    const char mark = text_[at_];
    quoted = mark == '"' || mark == '\'';
    if (quoted) {
      const size_t end = text_.find(mark, at_ + 1);
      ATTUNE_ASSERT(end != std::string_view::npos);
      const std::string body(text_.substr(at_ + 1, end - at_ - 1));
      at_ = end + 1;
      return body;
    }
    const size_t end =
        inside ? std::min(text_.find_first_of(",]}:", at_), text_.size()) : text_.size();
    const std::string body(trim(text_.substr(at_, end - at_)));
    at_ = end;
    return body;
  }

  Node value(bool inside) {
    skip();
    ATTUNE_ASSERT(at_ < text_.size());
    if (take('[')) {
      std::vector<Node> items;
      while (!take(']')) {
        items.push_back(value(true));
        take(',');
      }
      return Node::list(std::move(items), place());
    }
    if (take('{')) {
      std::vector<std::pair<std::string, Node>> entries;
      while (!take('}')) {
        bool quoted = false;
        skip();
        std::string key = scalar_text(true, quoted);
        ATTUNE_ASSERT(take(':'));
        entries.emplace_back(std::move(key), value(true));
        take(',');
      }
      return Node::map(std::move(entries), place());
    }
    bool quoted = false;
    std::string body = scalar_text(inside, quoted);
    if (!quoted && (body == "null" || body == "~")) return Node();
    return Node::scalar(std::move(body), quoted, place());
  }

  std::string_view text_;
  size_t at_ = 0;
};

std::string lead(const Node::Place& place, std::string_view path) {
  const std::string where = place.text();
  if (where.empty()) return std::string(path);
  return path.empty() ? where : format("{}: {}", where, path);
}

std::string join_path(std::string_view path, std::string_view key) {
  return path.empty() ? std::string(key) : format("{}.{}", path, key);
}

struct Interval {
  double low = 0, high = 0;
  bool low_open = false, high_open = false;
  bool holds(double x) const {
    return (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  }
};

double bound(std::string_view text) {
  text = trim(text);
  const double infinity = std::numeric_limits<double>::infinity();
  if (text == "inf") return infinity;
  if (text == "-inf") return -infinity;
  return Node::scalar(std::string(text), false, {}).as_number("range of an option");
}

std::optional<Interval> parse_interval(std::string_view text) {
  text = trim(text);
  if (text.size() < 2 || (text.front() != '[' && text.front() != '(')) return std::nullopt;
  const size_t comma = text.find(',');
  ATTUNE_ASSERT(comma != std::string_view::npos);
  Interval interval;
  interval.low_open = text.front() == '(';
  interval.high_open = text.back() == ')';
  interval.low = bound(text.substr(1, comma - 1));
  interval.high = bound(text.substr(comma + 1, text.size() - comma - 2));
  return interval;
}

/// Checks one value against its declaration; `where` leads the message.
class Check {
 public:
  Check(const Option& option, const Node& value, std::string where)
      : option_(option), value_(value), where_(std::move(where)) {}

  void run() const {
    const std::string& kind = option_.kind;
    // A default outside its own kind ("auto" for a number) is a word the option understands.
    if (value_.is_scalar() && value_.text() == option_.fallback && is_word(option_.fallback))
      return;
    if (kind == "any") return;
    if (kind == "bool") return typed([](const Node& v) { v.as_bool(""); }, "true or false");
    if (kind == "int") return number("an integer", true);
    if (kind == "number") return number("a number", false);
    if (kind == "string") return scalar("a text");
    if (kind == "choice") return choice();
    if (kind == "list" || kind == "globs") return each("a text or a list of texts", false);
    if (kind == "numbers") return each("a list of numbers", true);
    if (kind == "map") {
      if (!value_.is_map()) wrong("a mapping");
      return;
    }
    fail(ErrorCode::Internal, "option {}: unknown kind \"{}\"", option_.name, kind);
  }

 private:
  template <class Read>
  void typed(Read read, std::string_view expected) const {
    try {
      read(value_);
    } catch (const Error&) {
      wrong(expected);
    }
  }

  void number(std::string_view noun, bool whole) const {
    std::string expected(noun);
    if (!option_.range.empty()) expected += format(" in {}", option_.range);
    if (is_word(option_.fallback)) expected += format(" or \"{}\"", option_.fallback);
    double read = 0;
    typed(
        [&](const Node& v) { read = whole ? static_cast<double>(v.as_int("")) : v.as_number(""); },
        expected);
    const std::optional<Interval> interval = parse_interval(option_.range);
    if (std::isnan(read) || (interval && !interval->holds(read))) wrong(expected);
  }

  void scalar(std::string_view expected) const {
    if (!value_.is_scalar()) wrong(expected);
  }

  void choice() const {
    const std::vector<std::string> choices = split(option_.range, '|');
    const std::string expected = format("one of {}", join(choices, ", "));
    scalar(expected);
    if (std::find(choices.begin(), choices.end(), value_.text()) != choices.end()) return;
    const std::string best = nearest(value_.text(), choices, 1).front();
    const bool near = edit_distance(best, value_.text()) <= 2;
    fail(ErrorCode::BadInput, "{}: expected {}, found {}{}", where_, expected, value_.shown(),
         near ? format("; did you mean \"{}\"?", best) : "");
  }

  void each(std::string_view expected, bool numbers) const {
    const std::vector<Node> items = value_.is_list() ? value_.items() : std::vector<Node>{value_};
    const std::optional<Interval> interval = numbers ? parse_interval(option_.range) : std::nullopt;
    for (const Node& item : items) {
      if (!item.is_scalar()) wrong(expected);
      if (!numbers) continue;
      double read = 0;
      typed([&](const Node&) { read = item.as_number(""); }, expected);
      if (interval && !interval->holds(read))
        fail(ErrorCode::BadInput, "{}: expected numbers in {}, found {}", where_, option_.range,
             item.text());
    }
  }

  static bool is_word(std::string_view text) {
    return !text.empty() && text != "required" && text != "null" &&
           Node::scalar(std::string(text), false, {}).to_json().is_string();
  }

  [[noreturn]] void wrong(std::string_view expected) const {
    fail(ErrorCode::BadInput, "{}: expected {}, found {}", where_, expected, value_.shown());
  }

  const Option& option_;
  const Node& value_;
  std::string where_;
};

}  // namespace

Options::Options(const std::vector<Option>& declared, const Node& given, std::string path)
    : path_(std::move(path)) {
  if (!given.is_null() && !given.is_map())
    fail(ErrorCode::BadInput, "{}: expected a mapping of options, found {}",
         lead(given.place(), path_), given.shown());
  std::vector<std::string> known;
  for (const Option& option : declared) known.push_back(option.name);
  for (const auto& [key, value] : given.entries()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const Node::Place place = value.place().file.empty() ? given.place() : value.place();
    fail(ErrorCode::BadInput, "{}: unknown key;{}", lead(place, join_path(path_, key)),
         suggestion(key, known));
  }
  for (const Option& option : declared) {
    const Node* value = given.find(option.name);
    if (value == nullptr || value->is_null()) {
      if (option.fallback == "required")
        fail(ErrorCode::BadInput, "{}: missing; it is required ({})",
             lead(given.place(), join_path(path_, option.name)), option.help);
      values_.emplace_back(option.name, FlowReader(option.fallback).read());
    } else {
      Check(option, *value, lead(value->place(), join_path(path_, option.name))).run();
      values_.emplace_back(option.name, *value);
      given_.push_back(option.name);
    }
    kinds_.push_back(option.kind);
  }
}

const Node& Options::value(std::string_view key) const {
  for (const auto& [name, node] : values_)
    if (name == key) return node;
  fail(ErrorCode::Internal, "option \"{}\" of {} was read but never declared", key, path_);
}

bool Options::given(std::string_view key) const {
  return std::find(given_.begin(), given_.end(), key) != given_.end();
}

const Node& Options::node(std::string_view key) const {
  return value(key);
}
Node::Place Options::place(std::string_view key) const {
  return value(key).place();
}
std::string Options::where(std::string_view key) const {
  return lead(place(key), join_path(path_, key));
}

Json Options::to_json() const {
  Json result = Json::object();
  for (size_t i = 0; i < values_.size(); ++i) {
    const auto& [name, node] = values_[i];
    const std::string& kind = kinds_[i];
    const bool text = kind == "string" || kind == "choice" || kind == "list" || kind == "globs";
    if (text && node.is_scalar()) {
      result[name] = node.text();
    } else if (text && node.is_list()) {
      result[name] = node.as_strings(name);
    } else {
      result[name] = node.to_json();
    }
  }
  return result;
}

template <>
bool Options::get<bool>(std::string_view key) const {
  return value(key).as_bool(join_path(path_, key));
}
template <>
int64_t Options::get<int64_t>(std::string_view key) const {
  return value(key).as_int(join_path(path_, key));
}
template <>
int Options::get<int>(std::string_view key) const {
  const int64_t wide = get<int64_t>(key);
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max())
    fail(ErrorCode::BadInput, "{}: {} is too large", where(key), wide);
  return static_cast<int>(wide);
}
template <>
double Options::get<double>(std::string_view key) const {
  return value(key).as_number(join_path(path_, key));
}
template <>
std::string Options::get<std::string>(std::string_view key) const {
  if (value(key).is_null()) return {};
  return value(key).as_string(join_path(path_, key));
}
template <>
std::vector<std::string> Options::get<std::vector<std::string>>(std::string_view key) const {
  if (value(key).is_null()) return {};
  return value(key).as_strings(join_path(path_, key));
}
template <>
std::vector<double> Options::get<std::vector<double>>(std::string_view key) const {
  if (value(key).is_null()) return {};
  return value(key).as_numbers(join_path(path_, key));
}
template <>
Node Options::get<Node>(std::string_view key) const {
  return value(key);
}

}  // namespace attune
