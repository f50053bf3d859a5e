#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <pcre2.h>

#include "base/error.h"
#include "text/pattern_syntax.h"
#include "text/unicode.h"

namespace attune {

struct Pattern::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

struct Pattern::Matcher::Data {
  pcre2_match_data* match = nullptr;
  ~Data() { pcre2_match_data_free(match); }
};

Pattern::Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern Pattern::literal(std::string_view text) {
  Pattern pattern;
  pattern.literal_ = unicode::decode(text);
  pattern.bytes_ = text;
  return pattern;
}

Pattern Pattern::from_json(const JsonView& json) {
  if (json.has("String")) return literal(json.at("String").as_string());
  return regex(json.at("Regex").as_string(), json.where());
}

Pattern Pattern::regex(std::string_view text, const std::string& where) {
  const std::string code = pcre2_pattern(text, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pattern pattern;
  pattern.code_ = std::make_unique<Code>();
  // Line anchors always match at inner lines in Oniguruma.
  pattern.code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(code.data()), code.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_MULTILINE,
                                      &error, &offset, nullptr);
  if (pattern.code_->code == nullptr) {
    unsigned char message[200];
    pcre2_get_error_message(error, message, sizeof message);
    fail(ErrorCode::Unsupported, "{}: cannot use the regular expression \"{}\": {} at byte {}",
         where, text, reinterpret_cast<const char*>(message), offset);
  }
  // Without it (no executable memory, say) matching is slower, no more.
  pcre2_jit_compile(pattern.code_->code, PCRE2_JIT_COMPLETE);
  return pattern;
}

std::vector<Pattern::Range> Pattern::find(std::u32string_view text) const {
  std::vector<Range> out;
  Matcher(*this).find(text, out);
  return out;
}

Pattern::Matcher::Matcher(const Pattern& pattern) : pattern_(pattern) {
  if (!pattern.code_) return;
  data_ = std::make_unique<Data>();
  data_->match = pcre2_match_data_create_from_pattern(pattern.code_->code, nullptr);
  if (data_->match == nullptr) throw std::bad_alloc();
}
Pattern::Matcher::~Matcher() = default;

bool Pattern::Matcher::next(std::string_view text, size_t at, Range& match) {
  const pcre2_code* const code = pattern_.code_->code;
  const PCRE2_SPTR subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int found =
      pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data_->match, nullptr);
  // Machine code has a small stack; the interpreter takes its memory from the heap.
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
    found = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                        data_->match, nullptr);
  }
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    fail(ErrorCode::BadInput,
         "splitting a text of {} bytes: the tokenizer's regular expression gave up (PCRE2 error "
         "{}); shorten the text",
         text.size(), found);
  }
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data_->match);
  match = {int32_t(range[0]), int32_t(range[1])};
  return true;
}

void Pattern::Matcher::find_bytes(std::string_view text, std::vector<Range>& out) {
  if (!pattern_.code_) {
    const std::string& wanted = pattern_.bytes_;
    if (wanted.empty()) return;
    for (size_t at = 0; (at = text.find(wanted, at)) != text.npos; at += wanted.size()) {
      out.emplace_back(int32_t(at), int32_t(at + wanted.size()));
    }
    return;
  }
  const size_t before = out.size();
  Range match;
  for (size_t at = 0; at <= text.size() && next(text, at, match);) {
    const bool empty = match.first == match.second;
    // An empty match right after another match does not count.
    if (!empty || out.size() == before || out.back().second != match.first) out.push_back(match);
    at = size_t(match.second);
    if (!empty) continue;
    do ++at;
    while (at < text.size() && (text[at] & 0xC0) == 0x80);
  }
}

void Pattern::Matcher::find(std::u32string_view text, std::vector<Range>& out) {
  if (!pattern_.code_) {
    const std::u32string& wanted = pattern_.literal_;
    if (wanted.empty()) return;
    for (size_t at = 0; (at = text.find(wanted, at)) != text.npos; at += wanted.size()) {
      out.emplace_back(int32_t(at), int32_t(at + wanted.size()));
    }
    return;
  }
  bytes_.clear();
  index_.clear();  // byte -> code point
  for (size_t i = 0; i < text.size(); ++i) {
    unicode::append(bytes_, text[i]);
    index_.resize(bytes_.size(), int32_t(i));
  }
  index_.push_back(int32_t(text.size()));
  found_.clear();
  find_bytes(bytes_, found_);
  for (const auto& [begin, end] : found_) {
    out.emplace_back(index_[size_t(begin)], index_[size_t(end)]);
  }
}

}  // namespace attune
