#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace attune {

/// The code points of UTF-8 text (invalid bytes as they are).
std::vector<char32_t> characters_of(std::string_view text);
/// Unicode's white space (as Python's str.split separates).
bool is_blank(char32_t c);
/// Words between white space.
std::vector<std::string> blank_separated(std::string_view text);
/// Without white space at both ends.
std::string_view without_blank_ends(std::string_view text);

}  // namespace attune
