#include "text/char_map.h"

#include <cstring>

#include "base/error.h"
#include "base/text.h"
#include "text/grapheme.h"
#include "text/unicode.h"

namespace attune {
namespace {

constexpr size_t kWholeCluster = 6;  // bytes; shorter clusters are looked up whole

// Units of the double array (Darts-clone).
bool unit_has_leaf(uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}
uint32_t unit_label(uint32_t unit) {
  return unit & (1u << 31 | 0xFF);
}
uint32_t unit_offset(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

}  // namespace

/// Changes so far; nothing is written down before the first one.
struct CharMapNormalizer::Changes {
  explicit Changes(const std::u32string& chars) : text(chars) {}
  void keep(char32_t c) {
    if (changed) list.emplace_back(c, 0);
  }
  void begin(size_t at) {
    if (changed) return;
    changed = true;
    list.reserve(text.size() + 16);
    for (size_t i = 0; i < at; ++i) list.emplace_back(text[i], 0);
  }
  const std::u32string& text;
  std::vector<NormalizedText::Change> list;
  bool changed = false;
};

CharMapNormalizer::CharMapNormalizer(std::string_view map, const std::string& where) {
  uint32_t bytes = 0;
  if (map.size() >= 4) std::memcpy(&bytes, map.data(), 4);
  if (map.size() < 8 || bytes < 4 || bytes > map.size() - 4) {
    fail(
        ErrorCode::Corrupt,
        "{}: the character map has {} bytes and says that {} of them are its trie; expected a trie "
        "of 4 bytes or more that fits",
        where, map.size(), bytes);
  }
  trie_.resize(bytes / 4);
  std::memcpy(trie_.data(), map.data() + 4, trie_.size() * 4);
  // What a size that is no multiple of 4 leaves over belongs to the replacements, as in the
  // reference.
  replacements_ = map.substr(4 + trie_.size() * 4);
  if (const std::optional<size_t> bad = invalid_utf8(replacements_)) {
    fail(ErrorCode::Corrupt, "{}: byte {} of the character map's replacements is not valid UTF-8",
         where, *bad);
  }
  for (char c = 0; c >= 0 && c < 127; ++c) plain_[size_t(c)] = c != '\r' && !find({&c, 1});
}

std::optional<std::string_view> CharMapNormalizer::find(std::string_view text) const {
  size_t at = unit_offset(trie_[0]);
  for (const char byte : text) {
    if (byte == '\0') break;
    at ^= uint8_t(byte);
    if (at >= trie_.size() || unit_label(trie_[at]) != uint8_t(byte)) break;
    const uint32_t unit = trie_[at];
    at ^= unit_offset(unit);
    if (!unit_has_leaf(unit)) continue;
    const size_t begin = at < trie_.size() ? trie_[at] & ~(1u << 31) : replacements_.size() + 1;
    if (begin > replacements_.size()) break;
    // Not in the middle of a character.
    if (begin < replacements_.size() && (replacements_[begin] & 0xC0) == 0x80) break;
    const size_t end = std::min(replacements_.find('\0', begin), replacements_.size());
    return std::string_view(replacements_).substr(begin, end - begin);
  }
  return std::nullopt;
}

/// Appends what replaces `old`; false when nothing does. What is longer than before is new at its
/// end, what is shorter takes the characters behind its last one, or behind the text before, along.
bool CharMapNormalizer::replace(std::u32string_view old, Changes& changes) const {
  char bytes[kWholeCluster * 4];
  size_t size = 0;
  for (const char32_t c : old) size += size_t(unicode::encode(c, bytes + size));
  const std::optional<std::string_view> found = find({bytes, size});
  if (!found) return false;
  changes.begin(size_t(old.data() - changes.text.data()));
  std::vector<NormalizedText::Change>& list = changes.list;
  int difference = -int(old.size());
  for (const char *at = found->data(), *end = at + found->size(); at < end; ++difference) {
    const char32_t c = unicode::next(at);
    list.emplace_back(c, difference >= 0 ? 1 : 0);
  }
  if (difference < 0 && !list.empty()) list.back().second += difference;
  return true;
}

void CharMapNormalizer::apply(NormalizedText& text) const {
  const std::u32string& chars = text.chars();
  const std::u32string_view view(chars);
  Changes changes(chars);
  for (size_t at = 0; at < chars.size();) {
    const char32_t c = chars[at];
    const char32_t next = at + 1 < chars.size() ? chars[at + 1] : 0;
    if (c < 128 && next < 0x300 && plain_[c]) {
      changes.keep(c);
      ++at;
      continue;
    }
    const size_t end = unicode::grapheme_end(view, at);
    size_t bytes = 0;
    for (size_t i = at; i < end && bytes < kWholeCluster; ++i) {
      bytes += chars[i] < 0x80 ? 1 : chars[i] < 0x800 ? 2 : chars[i] < 0x10000 ? 3 : 4;
    }
    if (bytes >= kWholeCluster || !replace(view.substr(at, end - at), changes)) {
      for (size_t i = at; i < end; ++i) {
        if (!replace(view.substr(i, 1), changes)) changes.keep(chars[i]);
      }
    }
    at = end;
  }
  if (changes.changed) text.transform(changes.list);
}

std::string decode_base64(std::string_view text, const std::string& where) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int8_t, 256> values;
  values.fill(-1);
  for (size_t i = 0; i < kDigits.size(); ++i) values[uint8_t(kDigits[i])] = int8_t(i);
  size_t size = text.size();
  for (int i = 0; i < 2 && size > 0 && text[size - 1] == '='; ++i) --size;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  for (size_t i = 0; i < size; ++i) {
    const int8_t value = values[uint8_t(text[i])];
    if (value < 0) fail(ErrorCode::Corrupt, "{}: character {} is not base64", where, i);
    bits = bits << 6 | uint32_t(value);
    if (i % 4 > 0) out += char(bits >> (6 - 2 * (i % 4)));
  }
  if (text.size() % 4 != 0) {
    fail(ErrorCode::Corrupt, "{}: {} characters are not whole groups of base64", where,
         text.size());
  }
  return out;
}

}  // namespace attune
