#include "text/grapheme.h"

#include <unicode/uchar.h>

namespace attune::unicode {
namespace {

struct ExtendRange {
  char32_t first, last;
};
// Extend and SpacingMark of Unicode 16 and 17, which ICU 72 does not know.
constexpr ExtendRange kNewExtend[] = {
    {0x897, 0x897},     {0x1ACF, 0x1ADD},   {0x1AE0, 0x1AEB},   {0x10D69, 0x10D6D},
    {0x10EFA, 0x10EFC}, {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
    {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2}, {0x113E1, 0x113E2},
    {0x11B60, 0x11B67}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F}, {0x1E5EE, 0x1E5EF},
    {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}};

int break_class(char32_t c) {
  for (const ExtendRange& range : kNewExtend) {
    if (c <= range.last) {
      if (c >= range.first) return U_GCB_EXTEND;
      break;
    }
  }
  if (c == 0x113D1) return U_GCB_PREPEND;
  if (c == 0x11A3A) return U_GCB_OTHER;
  return u_getIntPropertyValue(UChar32(c), UCHAR_GRAPHEME_CLUSTER_BREAK);
}

bool is_control(int kind) {
  return kind == U_GCB_CONTROL || kind == U_GCB_CR || kind == U_GCB_LF;
}

/// Rules GB3 to GB9b: no break between two characters of these classes.
bool joins(int before, int after) {
  if (before == U_GCB_CR && after == U_GCB_LF) return true;
  if (is_control(before) || is_control(after)) return false;
  if (after == U_GCB_EXTEND || after == U_GCB_ZWJ || after == U_GCB_SPACING_MARK) return true;
  switch (before) {
    case U_GCB_L:
      return after == U_GCB_L || after == U_GCB_V || after == U_GCB_LV || after == U_GCB_LVT;
    case U_GCB_LV:
    case U_GCB_V:
      return after == U_GCB_V || after == U_GCB_T;
    case U_GCB_LVT:
    case U_GCB_T:
      return after == U_GCB_T;
    default:
      return before == U_GCB_PREPEND;
  }
}

}  // namespace

size_t grapheme_end(std::u32string_view text, size_t begin) {
  size_t at = begin + 1;
  // Below U+0300 only a line break has two characters.
  if (at < text.size() && text[begin] < 0x300 && text[at] < 0x300) {
    return text[begin] == '\r' && text[at] == '\n' ? at + 1 : at;
  }
  int before = at < text.size() ? break_class(text[begin]) : 0;
  bool picture =
      at < text.size() && u_hasBinaryProperty(UChar32(text[begin]), UCHAR_EXTENDED_PICTOGRAPHIC);
  size_t flags = before == U_GCB_REGIONAL_INDICATOR ? 1 : 0;
  for (; at < text.size(); ++at) {
    const int after = break_class(text[at]);
    const bool emoji = u_hasBinaryProperty(UChar32(text[at]), UCHAR_EXTENDED_PICTOGRAPHIC);
    const bool sequence = picture && before == U_GCB_ZWJ && emoji;  // GB11
    const bool flag = after == U_GCB_REGIONAL_INDICATOR && before == after && flags % 2 == 1;
    if (!joins(before, after) && !sequence && !flag) break;
    picture = emoji || (picture && (after == U_GCB_EXTEND || after == U_GCB_ZWJ));
    flags = after == U_GCB_REGIONAL_INDICATOR ? flags + 1 : 0;
    before = after;
  }
  return at;
}

}  // namespace attune::unicode
