#pragma once
#include <string>
#include <string_view>

namespace attune {

/// A regular expression as tokenizer files have it (Oniguruma, Ruby's syntax, Unicode 16) rewritten
/// for PCRE2 so that it means the same: \s \w \d \h and POSIX classes by Unicode properties, the
/// flag m as s, and general categories with the characters that PCRE2's Unicode tables (14 in
/// version 10.42) do not know yet. Throws Unsupported, led by `where`, for sets within sets and
/// intersections of sets, which PCRE2 has not. Differs: \b and other properties than general
/// categories (scripts, say) are those of PCRE2's tables.
std::string pcre2_pattern(std::string_view pattern, const std::string& where);

}  // namespace attune
