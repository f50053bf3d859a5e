#include "metrics/words.h"

namespace attune {

namespace {

struct Point {
  char32_t value = 0;
  size_t bytes = 1;
};

Point point_at(std::string_view text, size_t at) {
  const unsigned char first = static_cast<unsigned char>(text[at]);
  const size_t length = first < 0xC2   ? 1
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 1;
  if (length == 1 || at + length > text.size()) return {first, 1};
  char32_t value = first & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    const unsigned char next = static_cast<unsigned char>(text[at + i]);
    if ((next & 0xC0) != 0x80) return {first, 1};
    value = (value << 6) | (next & 63);
  }
  return {value, length};
}

}  // namespace

std::vector<char32_t> characters_of(std::string_view text) {
  std::vector<char32_t> result;
  for (size_t at = 0; at < text.size();) {
    const Point point = point_at(text, at);
    result.push_back(point.value);
    at += point.bytes;
  }
  return result;
}

bool is_blank(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::vector<std::string> blank_separated(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t at = 0; at < text.size();) {
    const Point point = point_at(text, at);
    if (!is_blank(point.value)) {
      word.append(text.substr(at, point.bytes));
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
    at += point.bytes;
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::string_view without_blank_ends(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const Point point = point_at(text, at);
    if (!is_blank(point.value)) {
      begin = begin < at ? begin : at;
      end = at + point.bytes;
    }
    at += point.bytes;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace attune
