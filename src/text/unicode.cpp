#include "text/unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/unorm2.h>
#include <unicode/uscript.h>

#include <cstring>
#include <iterator>

namespace attune::unicode {
namespace {

constexpr int kCategories = 8;     // unicode_categories
constexpr int kNormalization = 9;  // unicode-normalization-alignments
constexpr int kScripts = 9;        // the table of UnicodeScripts

struct Range {
  char32_t first, last;
};

// Word characters added by Unicode 16 and numbers added by 16 and 17, which ICU 72 does not know.
constexpr Range kNewWord[] = {
    {0x897, 0x897},     {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},
    {0x105C0, 0x105F3}, {0x10D40, 0x10D65}, {0x10D69, 0x10D6D}, {0x10D6F, 0x10D85},
    {0x10EC2, 0x10EC4}, {0x10EFC, 0x10EFC}, {0x11380, 0x11389}, {0x1138B, 0x1138B},
    {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113C0}, {0x113C2, 0x113C2},
    {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D3}, {0x113E1, 0x113E2},
    {0x116D0, 0x116E3}, {0x11BC0, 0x11BE0}, {0x11BF0, 0x11BF9}, {0x11F5A, 0x11F5A},
    {0x13460, 0x143FA}, {0x16100, 0x16139}, {0x16D40, 0x16D6C}, {0x16D70, 0x16D79},
    {0x18CFF, 0x18CFF}, {0x1CCF0, 0x1CCF9}, {0x1E5D0, 0x1E5FA}, {0x2EBF0, 0x2EE5D}};
constexpr Range kNewNumeric[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                 {0x11DE0, 0x11DE9}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
                                 {0x16FF4, 0x16FF6}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};

template <size_t N>
bool in(const Range (&ranges)[N], char32_t c) {
  if (c < ranges[0].first) return false;
  for (const Range& range : ranges) {
    if (c <= range.last) return c >= range.first;
  }
  return false;
}

bool known(char32_t c, int version) {
  UVersionInfo age;
  u_charAge(UChar32(c), age);
  return age[0] != 0 && (age[0] < version || (age[0] == version && age[1] == 0));
}

const icu::Normalizer2& normalizer(bool compatible) {
  UErrorCode error = U_ZERO_ERROR;
  return *(compatible ? icu::Normalizer2::getNFKCInstance(error)
                      : icu::Normalizer2::getNFCInstance(error));
}

constexpr uint32_t kHangulS = 0xAC00, kHangulL = 0x1100, kHangulV = 0x1161, kHangulT = 0x11A7;

}  // namespace

bool is_other(char32_t c) {
  const int8_t type = u_charType(UChar32(c));
  return type == U_CONTROL_CHAR || type == U_PRIVATE_USE_CHAR ||
         (type == U_FORMAT_CHAR && known(c, kCategories));
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c > 0x20 && c < 0x30) || (c > 0x39 && c < 0x41) || (c > 0x5A && c < 0x61) ||
           (c > 0x7A && c < 0x7F);
  if (c == 0x166D || c == 0x111C9) return true;  // reclassified after Unicode 8
  return (U_GET_GC_MASK(UChar32(c)) & U_GC_P_MASK) != 0 && known(c, kCategories);
}

bool is_nonspacing(char32_t c) {
  if (c < 0x300) return false;
  if (c == 0x1734) return true;                                                 // since then Mc
  if (c == 0x1885 || c == 0x1886 || c == 0xA9BD || c == 0x111C9) return false;  // since then Mn
  return u_charType(UChar32(c)) == U_NON_SPACING_MARK && known(c, kCategories);
}

bool is_mark(char32_t c) {
  if (c < 0x300) return false;
  if (c == 0x1CF2 || c == 0x1CF3) return true;
  if (c == 0x111C9) return false;
  return (U_GET_GC_MASK(UChar32(c)) & U_GC_M_MASK) != 0 && known(c, kNormalization);
}

bool is_cjk(char32_t c) {
  if (c < 0x3400) return false;
  return (c >= 0x4E00 && c <= 0x9FFF) || c <= 0x4DBF || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B81F) ||
         (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

int script(char32_t c) {
  if (c == ' ' || !known(c, kScripts)) return kNoScript;
  if (c == 0x30FC) return USCRIPT_HAN;
  if (c == 0x589 || c == 0x61C) return USCRIPT_COMMON;  // of one script each since then
  if (c == 0x953 || c == 0x954) return USCRIPT_DEVANAGARI;
  UErrorCode error = U_ZERO_ERROR;
  const int found = uscript_getScript(UChar32(c), &error);
  if (found == USCRIPT_UNKNOWN) return kNoScript;
  return found == USCRIPT_HIRAGANA || found == USCRIPT_KATAKANA ? USCRIPT_HAN : found;
}

bool is_numeric(char32_t c) {
  return (U_GET_GC_MASK(UChar32(c)) & U_GC_N_MASK) != 0 || in(kNewNumeric, c);
}

bool is_word(char32_t c) {
  constexpr uint32_t kMask = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_hasBinaryProperty(UChar32(c), UCHAR_ALPHABETIC) ||
         (U_GET_GC_MASK(UChar32(c)) & kMask) != 0 || c == 0x200C || c == 0x200D || in(kNewWord, c);
}

int combining_class(char32_t c) {
  if (c < 0x300) return 0;
  const int value = u_getCombiningClass(UChar32(c));
  return value != 0 && known(c, kNormalization) ? value : 0;
}

Lower to_lower(char32_t c) {
  if (c < 0x80) return {{c >= 'A' && c <= 'Z' ? c + 32 : c, 0}, 1};
  if (c == 0x130) return {{'i', 0x307}, 2};  // the only lower case of two characters
  // Pairs of Unicode 16 and 17.
  if (c >= 0x10D50 && c <= 0x10D65) return {{c + 0x20, 0}, 1};
  if (c >= 0x16EA0 && c <= 0x16EB8) return {{c + 0x1B, 0}, 1};
  switch (c) {
    case 0xA7CB:
      return {{0x264, 0}, 1};
    case 0xA7DC:
      return {{0x19B, 0}, 1};
    case 0x1C89:
    case 0xA7CC:
    case 0xA7CE:
    case 0xA7D2:
    case 0xA7D4:
    case 0xA7DA:
      return {{c + 1, 0}, 1};
    default:
      return {{char32_t(u_tolower(UChar32(c))), 0}, 1};
  }
}

void decompose(char32_t c, bool compatible, std::vector<char32_t>& out) {
  out.clear();
  if (c < 0x80) return out.push_back(c);
  if (c >= kHangulS && c < kHangulS + 11172) {
    const uint32_t s = c - kHangulS;
    out.push_back(kHangulL + s / 588);
    out.push_back(kHangulV + s % 588 / 28);
    if (s % 28 != 0) out.push_back(kHangulT + s % 28);
    return;
  }
  icu::UnicodeString parts;
  if (!known(c, kNormalization) || !normalizer(compatible).getDecomposition(UChar32(c), parts)) {
    return out.push_back(c);
  }
  for (int32_t i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) {
    out.push_back(char32_t(parts.char32At(i)));
  }
}

char32_t compose(char32_t a, char32_t b) {
  const UChar32 c = normalizer(false).composePair(UChar32(a), UChar32(b));
  return c >= 0 && known(char32_t(c), kNormalization) ? char32_t(c) : 0;
}

bool is_inert(char32_t c, NormalizedText::Form form) {
  using Form = NormalizedText::Form;
  if (c < 0x80) return true;
  if (form == Form::Nfc && c < 0x300) return true;
  const UProperty property = form == Form::Nfc    ? UCHAR_NFC_QUICK_CHECK
                             : form == Form::Nfkc ? UCHAR_NFKC_QUICK_CHECK
                             : form == Form::Nfd  ? UCHAR_NFD_QUICK_CHECK
                                                  : UCHAR_NFKD_QUICK_CHECK;
  return u_getIntPropertyValue(UChar32(c), property) == UNORM_YES &&
         u_getCombiningClass(UChar32(c)) == 0;
}

std::u32string decode(std::string_view utf8) {
  std::u32string out;
  out.reserve(utf8.size());
  const char* at = utf8.data();
  const char* end = at + utf8.size();
  while (at < end) out.push_back(next(at));
  return out;
}

void append(std::string& out, char32_t c) {
  char bytes[4];
  out.append(bytes, size_t(encode(c, bytes)));
}

std::string encode(std::u32string_view chars) {
  std::string out;
  out.reserve(chars.size());
  for (const char32_t c : chars) append(out, c);
  return out;
}

void append_lossy(std::string& out, std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const uint8_t lead = uint8_t(bytes[at]);
    const size_t begin = at++;
    size_t more = lead >= 0xC2 && lead < 0xE0 ? 1 : lead >= 0xE0 && lead < 0xF0 ? 2 : 0;
    if (lead >= 0xF0 && lead < 0xF5) more = 3;
    // The second byte has a narrower range behind some first ones.
    uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    bool whole = lead < 0x80 || more > 0;
    for (; more > 0 && whole; --more) {
      whole = at < bytes.size() && uint8_t(bytes[at]) >= low && uint8_t(bytes[at]) <= high;
      if (whole) ++at;
      low = 0x80, high = 0xBF;
    }
    out += whole ? bytes.substr(begin, at - begin) : std::string_view("\uFFFD");
  }
}

bool is_ascii(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) return false;
  }
  for (; i < text.size(); ++i) {
    if ((text[i] & 0x80) != 0) return false;
  }
  return true;
}

}  // namespace attune::unicode
