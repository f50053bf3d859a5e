#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace attune {

/// Regular expressions of adapter files, with the meaning of Python's re as far as PCRE2 shares it.
/// Both throw Unsupported, naming `where`, for an expression that PCRE2 refuses or gives up on.
bool regex_full_match(const std::string& pattern, std::string_view text, const std::string& where);
/// Matches from the start of `text`; the named group's text, or the whole match when `group` is
/// empty.
std::optional<std::string> regex_prefix_match(const std::string& pattern, std::string_view text,
                                              const std::string& group, const std::string& where);

}  // namespace attune
