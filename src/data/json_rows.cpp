#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "data/reader.h"

namespace attune {

Json parse_json_row(std::string_view text, const std::string& name, int64_t line) {
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    const size_t at = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const std::string_view before = text.substr(0, at);
    const size_t newline = before.rfind('\n');
    const size_t column = newline == std::string_view::npos ? at + 1 : at - newline;
    // The library's text starts with its own place, which counts within this record only.
    const std::string_view reason = error.what();
    const size_t colon = reason.find(": ");
    fail(ErrorCode::BadInput, "{}:{}:{}: not valid JSON: {}", name, line + count_lines(before),
         column, colon == std::string_view::npos ? reason : reason.substr(colon + 2));
  } catch (const Json::exception& error) {
    fail(ErrorCode::BadInput, "{}:{}: not valid JSON: {}", name, line, error.what());
  }
}

namespace {

Json parse_object(std::string_view text, const std::string& name, int64_t line) {
  Json value = parse_json_row(text, name, line);
  if (!value.is_object())
    fail(ErrorCode::BadInput,
         "{}:{}: the record is of type {}, expected a JSON object such as {{\"text\": \"...\"}}",
         name, line, value.type_name());
  return value;
}

class JsonLinesReader : public Reader {
 public:
  explicit JsonLinesReader(const Source& source) : source_(source) {}

  void index(RowIndex& rows) override {
    const std::string_view text = source_.text();
    int64_t line = 1;
    for (size_t at = 0; at < text.size() && !rows.full(); ++line) {
      const Line found = line_at(text, at);
      if (!blank(found.text)) rows.add(at, found.text.size(), line);
      at = found.next;
    }
  }

  Json parse(std::string_view text, int64_t line) const override {
    return parse_object(text, source_.name(), line);
  }
  bool typed() const override { return true; }

 private:
  const Source& source_;
};

/// Steps over JSON text without building values, counting lines.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}
  size_t at() const { return at_; }
  int64_t line() const { return line_; }
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }

  void skip_space() {
    for (; !done(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
    }
  }

  /// Steps over `c`; false when something else is there.
  bool take(char c) {
    skip_space();
    if (peek() != c || done()) return false;
    ++at_;
    return true;
  }

  /// Steps over a string; false when the text ends inside it.
  bool skip_string() {
    for (++at_; !done(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (c == '\\') {
        ++at_;
      } else if (c == '"') {
        ++at_;
        return true;
      }
    }
    at_ = text_.size();
    return false;
  }

  /// Steps over any value; false when the text ends inside it. Brackets are counted, not matched:
  /// parsing does that.
  bool skip_value() {
    skip_space();
    int64_t depth = 0;
    while (!done()) {
      const char c = text_[at_];
      if (c == '"') {
        if (!skip_string()) return false;
        if (depth == 0) return true;
        continue;
      }
      if (depth == 0 && (c == ',' || c == ']' || c == '}')) return true;
      if (c == '\n') ++line_;
      ++at_;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) return true;
    }
    return depth == 0;
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

class JsonArrayReader : public Reader {
 public:
  explicit JsonArrayReader(const Source& source) : source_(source) {}

  void index(RowIndex& rows) override {
    const std::string_view text = source_.text();
    Scanner scan(text);
    scan.skip_space();
    if (scan.peek() == '{') scan = find_array();
    if (!scan.take('['))
      fail(ErrorCode::BadInput, "{}:{}: expected a JSON array of objects, found {}", source_.name(),
           scan.line(), scan.done() ? "the end of the file" : "another value");
    if (scan.take(']')) return;
    while (!rows.full()) {
      scan.skip_space();
      const size_t begin = scan.at();
      const int64_t line = scan.line();
      if (!scan.skip_value()) {
        rows.problem(format("{}:{}: the file ends inside the record that starts here; expected ]",
                            source_.name(), line));
        return;
      }
      rows.add(begin, scan.at() - begin, line);
      if (scan.take(',')) continue;
      if (!scan.take(']'))
        rows.problem(
            format("{}:{}: expected , or ] after a record, found {}", source_.name(), scan.line(),
                   scan.done() ? std::string("the end of the file") : format("'{}'", scan.peek())));
      return;
    }
  }

  Json parse(std::string_view text, int64_t line) const override {
    return parse_object(text, source_.name(), line);
  }
  bool typed() const override { return true; }

 private:
  /// The one array of objects among the members of the top object.
  Scanner find_array() const {
    Scanner scan(source_.text()), found = scan;
    std::vector<std::string> keys;
    scan.take('{');
    do {
      scan.skip_space();
      const size_t begin = scan.at();
      if (scan.peek() != '"' || !scan.skip_string()) break;
      const std::string key(source_.text().substr(begin + 1, scan.at() - begin - 2));
      if (!scan.take(':')) break;
      scan.skip_space();
      Scanner inside = scan;
      if (inside.take('[') && (inside.skip_space(), inside.peek() == '{')) {
        keys.push_back(key);
        found = scan;
      }
      // An array cut short is reported when its records are read.
      if (!scan.skip_value()) break;
    } while (scan.take(','));
    if (keys.size() == 1) return found;
    fail(
        ErrorCode::BadInput,
        "{}: expected an array of records, or an object with one array of records inside; found an "
        "object with {} such arrays{}{}",
        source_.name(), keys.size(), keys.empty() ? "" : ": ", join(keys, ", "));
  }

  const Source& source_;
};

}  // namespace

std::unique_ptr<Reader> json_lines_reader(const Source& source) {
  return std::make_unique<JsonLinesReader>(source);
}
std::unique_ptr<Reader> json_array_reader(const Source& source) {
  return std::make_unique<JsonArrayReader>(source);
}

}  // namespace attune
