#include "exchange/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>

#include "base/error.h"

namespace attune {

namespace {

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

std::optional<std::string> match(const std::string& pattern, std::string_view text,
                                 const std::string& group, uint32_t flags,
                                 const std::string& where) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, FreeCode> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | flags,
                    &error, &offset, nullptr));
  if (code == nullptr)
    fail(ErrorCode::Unsupported, "{}: the expression \"{}\" is not understood at position {}: {}",
         where, pattern, offset, message_of(error));
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(
      pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const int found = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                0, 0, data.get(), nullptr);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0)
    fail(ErrorCode::Unsupported, "{}: matching the expression \"{}\" failed: {}", where, pattern,
         message_of(found));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
  if (group.empty()) return std::string(text.substr(ends[0], ends[1] - ends[0]));
  const int number =
      pcre2_substring_number_from_name(code.get(), reinterpret_cast<PCRE2_SPTR>(group.c_str()));
  ATTUNE_ASSERT(number > 0);
  return std::string(text.substr(ends[2 * number], ends[2 * number + 1] - ends[2 * number]));
}

}  // namespace

bool regex_full_match(const std::string& pattern, std::string_view text, const std::string& where) {
  return match(pattern, text, "", PCRE2_ANCHORED | PCRE2_ENDANCHORED, where).has_value();
}

std::optional<std::string> regex_prefix_match(const std::string& pattern, std::string_view text,
                                              const std::string& group, const std::string& where) {
  return match(pattern, text, group, PCRE2_ANCHORED, where);
}

}  // namespace attune
