#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <pcre2.h>

#include "base/error.h"
#include "base/text.h"
#include "text/unicode.h"

namespace attune {

struct Pattern::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Pattern::Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

namespace {

/// Oniguruma, which the patterns are written for, takes \s and \w by the Unicode properties; PCRE2
/// has its own sets (\s takes in U+180E, \w leaves out marks).
std::string by_properties(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const char next = c == '\\' && i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    if (next == 's' || next == 'S') {
      out += next == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
    } else if (next == 'w' || (next == 'W' && !in_class)) {
      out += in_class ? std::string(kWord) : format("[{}{}]", next == 'W' ? "^" : "", kWord);
    } else {
      out += c;
      if (next != '\0') out += next;
      if (next == '\0' && c == '[') in_class = true;
      if (next == '\0' && c == ']') in_class = false;
    }
    if (next != '\0') ++i;
  }
  return out;
}

}  // namespace

Pattern Pattern::literal(std::string_view text) {
  Pattern pattern;
  pattern.literal_ = unicode::decode(text);
  return pattern;
}

Pattern Pattern::from_json(const JsonView& json) {
  if (json.has("String")) return literal(json.at("String").as_string());
  const std::string text = json.at("Regex").as_string();
  const std::string code = by_properties(text);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pattern pattern;
  pattern.code_ = std::make_unique<Code>();
  pattern.code_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(code.data()), code.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr);
  if (pattern.code_->code == nullptr) {
    unsigned char message[200];
    pcre2_get_error_message(error, message, sizeof message);
    fail(ErrorCode::Unsupported, "{}: cannot use the regular expression \"{}\": {} at byte {}",
         json.where(), text, reinterpret_cast<const char*>(message), offset);
  }
  return pattern;
}

namespace {

std::vector<Pattern::Range> find_literal(std::u32string_view text, std::u32string_view wanted) {
  std::vector<Pattern::Range> out;
  if (wanted.empty()) return out;
  size_t at = 0;
  while ((at = text.find(wanted, at)) != std::u32string_view::npos) {
    out.emplace_back(int32_t(at), int32_t(at + wanted.size()));
    at += wanted.size();
  }
  return out;
}

}  // namespace

std::vector<Pattern::Range> Pattern::find(std::u32string_view text) const {
  if (!code_) return find_literal(text, literal_);
  std::string bytes;
  std::vector<int32_t> index;  // byte -> code point
  for (size_t i = 0; i < text.size(); ++i) {
    unicode::append(bytes, text[i]);
    index.resize(bytes.size(), int32_t(i));
  }
  index.push_back(int32_t(text.size()));
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  std::vector<Range> out;
  size_t at = 0;
  while (at <= bytes.size()) {
    const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(bytes.data()),
                                  bytes.size(), at, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      fail(ErrorCode::BadInput,
           "splitting a text of {} characters: the tokenizer's regular expression gave up "
           "(PCRE2 error {}); shorten the text",
           text.size(), found);
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    const Range match{index[range[0]], index[range[1]]};
    // An empty match right after another match does not count.
    const bool repeated =
        match.first == match.second && !out.empty() && out.back().second == match.first;
    if (!repeated) out.push_back(match);
    at = range[1];
    if (range[0] == range[1]) {
      do ++at;
      while (at < bytes.size() && (bytes[at] & 0xC0) == 0x80);
    }
  }
  return out;
}

}  // namespace attune
