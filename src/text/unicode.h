#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/normalized.h"

namespace attune::unicode {

/// Character properties with the Unicode versions that the `tokenizers` package uses: its
/// categories are those of Unicode 8, its normalisation data those of Unicode 9, its case mapping
/// and regular expressions those of Unicode 17. ICU gives the rest; the few code points whose
/// property changed between are listed in unicode.cpp.

/// White_Space, which is the same in all versions.
inline bool is_white(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
bool is_other(
    char32_t c);  // control, format, private use (Unicode 8); unassigned ones do not count
bool is_punctuation(char32_t c);  // category P (Unicode 8) or ASCII punctuation
bool is_nonspacing(char32_t c);   // category Mn (Unicode 8)
bool is_mark(char32_t c);         // category M (Unicode 9)
bool is_cjk(char32_t c);          // the eight ranges that BERT surrounds with spaces
bool is_numeric(char32_t c);      // category N
bool is_word(char32_t c);         // \w of a Unicode regular expression
int combining_class(char32_t c);  // 0 for what Unicode 9 did not know

/// The script as a number; Han for all of Japanese and Chinese. The blank and what Unicode 9 did
/// not know have none.
constexpr int kNoScript = -1;
int script(char32_t c);

/// Lower case of one character by itself (no context): one or two characters.
struct Lower {
  char32_t chars[2];
  int count;
};
Lower to_lower(char32_t c);

/// Full decomposition of one character into `out`; at least one character.
void decompose(char32_t c, bool compatible, std::vector<char32_t>& out);
/// The primary composite of a pair; 0 when there is none.
char32_t compose(char32_t a, char32_t b);

/// True only when the character, among others of that kind, stays as it is under the form.
bool is_inert(char32_t c, NormalizedText::Form form);

/// Reads one code point of valid UTF-8 and moves `at` past it.
inline char32_t next(const char*& at) {
  const auto* p = reinterpret_cast<const unsigned char*>(at);
  if (p[0] < 0x80) return at += 1, p[0];
  if (p[0] < 0xE0) return at += 2, char32_t((p[0] & 0x1F) << 6 | (p[1] & 0x3F));
  if (p[0] < 0xF0) {
    return at += 3, char32_t((p[0] & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F));
  }
  return at += 4,
         char32_t((p[0] & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F));
}

/// Writes the UTF-8 form (1 to 4 bytes) and returns its length.
inline int encode(char32_t c, char* out) {
  if (c < 0x80) return out[0] = char(c), 1;
  if (c < 0x800) return out[0] = char(0xC0 | c >> 6), out[1] = char(0x80 | (c & 0x3F)), 2;
  if (c < 0x10000) {
    out[0] = char(0xE0 | c >> 12), out[1] = char(0x80 | (c >> 6 & 0x3F));
    return out[2] = char(0x80 | (c & 0x3F)), 3;
  }
  out[0] = char(0xF0 | c >> 18), out[1] = char(0x80 | (c >> 12 & 0x3F));
  out[2] = char(0x80 | (c >> 6 & 0x3F)), out[3] = char(0x80 | (c & 0x3F));
  return 4;
}

std::u32string decode(std::string_view utf8);
void append(std::string& out, char32_t c);
std::string encode(std::u32string_view chars);

/// Appends bytes that need not be UTF-8: U+FFFD stands for every part that is not, as long as a
/// valid sequence could begin that way (the Unicode standard's "maximal subpart").
void append_lossy(std::string& out, std::string_view bytes);

/// True when no byte has its high bit set.
bool is_ascii(std::string_view text);

}  // namespace attune::unicode
