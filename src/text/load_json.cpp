#include "text/load_json.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"

namespace attune {
namespace {

using nlohmann::json;

constexpr size_t kDeepest = 100;

double power_of_ten(int exponent) {
  const std::string text = "1e" + std::to_string(exponent);
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// Builds the tree, but takes model.vocab and model.merges apart.
class Handler : public json::json_sax_t {
 public:
  /// `bare`: the whole text is the vocabulary.
  Handler(TokenizerJson& out, std::string_view text, const std::string& file, bool bare)
      : out_(out), text_(text), file_(file), bare_(bare) {}

  bool null() override { return value(nullptr, "null"); }
  bool boolean(bool v) override { return value(v, v ? "true" : "false"); }
  bool number_integer(int64_t v) override { return number(v, std::to_string(v), v, true); }
  bool number_unsigned(uint64_t v) override {
    return number(v, std::to_string(v), int64_t(std::min<uint64_t>(v, INT64_MAX)), true);
  }
  bool number_float(double v, const std::string& text) override {
    return number(v, text, 0, false);
  }
  bool string(std::string& v) override;
  bool binary(json::binary_t&) override { return true; }
  bool start_object(size_t) override { return start(json::object(), "an object"); }
  bool end_object() override { return end(); }
  bool start_array(size_t) override { return start(json::array(), "a list"); }
  bool end_array() override { return end(); }
  bool key(std::string& v) override;
  bool parse_error(size_t position, const std::string&, const json::exception&) override;

 private:
  enum class Inside { Tree, VocabularyObject, VocabularyList, Merges };
  json* place(json v);
  bool value(json v, const std::string& text);
  bool number(json v, const std::string& text, int64_t id, bool whole);
  bool start(json v, const char* name);
  bool end();
  void begin_pair();
  void end_pair();
  [[noreturn]] void wrong(const std::string& found) const;

  TokenizerJson& out_;
  std::string_view text_;
  const std::string& file_;
  std::vector<json*> stack_;
  std::string key_, piece_, second_;
  bool bare_, in_model_ = false;
  Inside inside_ = Inside::Tree;
  size_t nested_ = 0;  // 1 inside [piece, score] or [a, b]
  int parts_ = 0;      // of that pair
};

/// What stands at model.vocab or model.merges now, and what belongs there.
void Handler::wrong(const std::string& found) const {
  std::string shown = found.size() > 40 ? found.substr(0, 37) + "..." : found;
  if (inside_ == Inside::VocabularyObject) {
    fail(ErrorCode::Corrupt, "{}: {}piece \"{}\" has id {}; expected an integer, 0 or more", file_,
         bare_ ? "" : "model.vocab: ", piece_, shown);
  }
  if (inside_ == Inside::VocabularyList) {
    fail(ErrorCode::Corrupt, "{}: model.vocab[{}]: found {}; expected [piece, score]", file_,
         out_.tables.vocabulary.size(), shown);
  }
  fail(ErrorCode::Corrupt, "{}: model.merges[{}]: found {}; expected \"a b\" or [\"a\", \"b\"]",
       file_, out_.tables.merges.size(), shown);
}

json* Handler::place(json v) {
  if (stack_.empty()) return &(out_.root = std::move(v));
  json& top = *stack_.back();
  if (top.is_array()) return &top.emplace_back(std::move(v));
  return &(top[key_] = std::move(v));
}

bool Handler::value(json v, const std::string& text) {
  if (inside_ != Inside::Tree) wrong(text);
  place(std::move(v));
  return true;
}

bool Handler::number(json v, const std::string& text, int64_t id, bool whole) {
  if (inside_ == Inside::VocabularyObject) {
    if (!whole || id < 0 || id > std::numeric_limits<int32_t>::max()) wrong(text);
    out_.tables.vocabulary.emplace_back(std::move(piece_), int32_t(id));
    return true;
  }
  if (inside_ == Inside::VocabularyList && nested_ == 1 && parts_ == 1) {
    out_.tables.scores.push_back(json_score(text));
    ++parts_;
    return true;
  }
  return value(std::move(v), text);
}

bool Handler::string(std::string& v) {
  if (inside_ == Inside::Tree) {
    place(std::move(v));
    return true;
  }
  if (inside_ == Inside::VocabularyList && nested_ == 1 && parts_ == 0) {
    piece_ = std::move(v);
    ++parts_;
    return true;
  }
  if (inside_ == Inside::Merges && nested_ == 1 && parts_ < 2) {
    (parts_++ == 0 ? piece_ : second_) = std::move(v);
    return true;
  }
  if (inside_ != Inside::Merges || nested_ == 1) wrong(json(v).dump());
  if (v.starts_with("#version")) return true;
  const size_t blank = v.find(' ');
  if (blank == std::string::npos || v.find(' ', blank + 1) != std::string::npos) {
    wrong(json(v).dump());
  }
  out_.tables.merges.emplace_back(v.substr(0, blank), v.substr(blank + 1));
  return true;
}

bool Handler::key(std::string& v) {
  if (inside_ == Inside::VocabularyObject) {
    piece_ = std::move(v);
    return true;
  }
  if (stack_.size() == 1) in_model_ = v == "model";
  key_ = std::move(v);
  return true;
}

bool Handler::start(json v, const char* name) {
  if (inside_ == Inside::VocabularyObject || nested_ == 1) wrong(name);
  if (inside_ != Inside::Tree) {
    if (!v.is_array()) wrong(name);
    nested_ = 1;
    parts_ = 0;
    return true;
  }
  if (stack_.size() >= kDeepest) {
    fail(ErrorCode::Corrupt, "{}: values are nested more than {} deep; expected a tokenizer's file",
         file_, kDeepest);
  }
  const bool list = v.is_array();
  json* const placed = place(std::move(v));
  if (in_model_ && stack_.size() == 2 && stack_.back()->is_object()) {
    if (key_ == "vocab") inside_ = list ? Inside::VocabularyList : Inside::VocabularyObject;
    if (key_ == "merges" && list) inside_ = Inside::Merges;
  }
  if (bare_ && stack_.empty() && !list) inside_ = Inside::VocabularyObject;
  stack_.push_back(placed);
  return true;
}

bool Handler::end() {
  if (nested_ == 1) {
    if (parts_ != 2) wrong("a list of " + std::to_string(parts_));
    nested_ = 0;
    if (inside_ == Inside::Merges) {
      out_.tables.merges.emplace_back(std::move(piece_), std::move(second_));
    } else {
      out_.tables.vocabulary.emplace_back(std::move(piece_),
                                          int32_t(out_.tables.vocabulary.size()));
    }
    return true;
  }
  inside_ = Inside::Tree;
  stack_.pop_back();
  return true;
}

bool Handler::parse_error(size_t position, const std::string&, const json::exception&) {
  const size_t at = std::min(position > 0 ? position - 1 : 0, text_.size());
  const std::string_view before = text_.substr(0, at);
  const size_t line = size_t(std::count(before.begin(), before.end(), '\n')) + 1;
  const size_t newline = before.rfind('\n');
  const size_t column = at - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
  fail(ErrorCode::Corrupt,
       "{}:{}:{}: the file is not complete JSON ({} bytes, error at byte {}); copy or download it "
       "again",
       file_, line, column, text_.size(), at);
}

}  // namespace

double json_score(std::string_view number) {
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool fraction = false, full = false;
  size_t i = number.starts_with('-') ? 1 : 0;
  for (; i < number.size() && number[i] != 'e' && number[i] != 'E'; ++i) {
    if (number[i] == '.') {
      fraction = true;
      continue;
    }
    const uint64_t digit = uint64_t(number[i] - '0');
    full = full || digits > (UINT64_MAX - digit) / 10;
    // Digits that do not fit are dropped; before the point they still count as a power of ten.
    if (!full) digits = digits * 10 + digit;
    if (full != fraction) exponent += fraction ? -1 : 1;
  }
  if (i < number.size()) {
    const bool minus = number.substr(i + 1).starts_with('-');
    i += number.substr(i + 1).find_first_not_of("+-") + 1;
    int64_t power = 0;
    for (; i < number.size(); ++i)
      power = std::min<int64_t>(power * 10 + (number[i] - '0'), 100000);
    exponent += minus ? -power : power;
  }
  double value = double(digits);
  for (; exponent < -308 && value != 0; exponent += 308) value /= power_of_ten(308);
  if (exponent < 0 && value != 0) value /= power_of_ten(int(-exponent));
  if (exponent > 0 && value != 0) {
    value *= exponent > 308 ? std::numeric_limits<double>::infinity() : power_of_ten(int(exponent));
  }
  return number.starts_with('-') ? -value : value;
}

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& file) {
  TokenizerJson out;
  Handler handler(out, text, file, false);
  json::sax_parse(text.begin(), text.end(), &handler);
  return out;
}

Vocabulary parse_vocabulary_json(std::string_view text, const std::string& file) {
  TokenizerJson out;
  Handler handler(out, text, file, true);
  json::sax_parse(text.begin(), text.end(), &handler);
  if (!out.root.is_object()) {
    fail(ErrorCode::Corrupt, "{}: expected an object of pieces and their ids", file);
  }
  return std::move(out.tables.vocabulary);
}

}  // namespace attune
