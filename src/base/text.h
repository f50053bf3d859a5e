#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

using fmt::format;

std::vector<std::string> split(std::string_view text, char separator);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view trim(std::string_view text);
bool starts_with(std::string_view text, std::string_view prefix);
bool ends_with(std::string_view text, std::string_view suffix);

/// Shell-style match of the whole of `text`: `*` matches any run (dots included), `?` one
/// character,
/// `[abc]` and `[0-5]` one of a set, `{a,b}` alternatives.
bool glob_match(std::string_view pattern, std::string_view text);

/// Damerau-Levenshtein distance.
int edit_distance(std::string_view a, std::string_view b);
/// The `count` candidates nearest to `name`, best first.
std::vector<std::string> nearest(std::string_view name, const std::vector<std::string>& candidates,
                                 size_t count = 3);
/// ` did you mean "rank"?` or, when nothing is near, ` known: a, b, c`.
std::string suggestion(std::string_view name, const std::vector<std::string>& candidates);

/// Byte offset of the first invalid UTF-8 sequence; empty when the text is valid.
std::optional<size_t> invalid_utf8(std::string_view text);
/// Number of code points of valid UTF-8.
int64_t code_points(std::string_view text);

/// ASCII letters in lower case.
std::string lowered(std::string text);
/// "1,234,567".
std::string with_thousands(int64_t value);
/// "1.5 GiB".
std::string human_bytes(double bytes);
/// "3m12s", "1h04m".
std::string human_seconds(double seconds);

}  // namespace attune
