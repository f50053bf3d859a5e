#include "text/char_map.h"

#include <cstring>

#include "text/grapheme.h"
#include "text/load_json.h"
#include "text/unicode.h"
#include "unit/text/folder.h"

namespace attune {
namespace char_map_test {

/// The character map of the T5 fixture: a real one, of few entries.
std::string fixture_map() {
  const TokenizerJson file = parse_tokenizer_json(golden_file("tokenizers/t5/tokenizer.json"), "f");
  for (const nlohmann::json& part : file.root["normalizer"]["normalizers"]) {
    if (part["type"] == "Precompiled") {
      return decode_base64(part["precompiled_charsmap"].get<std::string>(), "f");
    }
  }
  return "";
}

std::string normalized(const CharMapNormalizer& map, const std::string& text) {
  NormalizedText form(unicode::decode(text));
  map.apply(form);
  return unicode::encode(form.chars());
}

TEST(CharMap, ReplacesCharactersAndShortClusters) {
  const CharMapNormalizer map(fixture_map(), "f");
  EXPECT_EQ(normalized(map, "abc ABC"), "abc ABC");
  EXPECT_EQ(normalized(map, "\uFF21\u2122\u00BD\uFB01"), "ATM1\u20442fi");
  EXPECT_EQ(normalized(map, "a\tb\u3000c\u00A0d"), "a b c d");
  EXPECT_EQ(normalized(map, "e\u0301x a\u030A"), "\u00E9x \u00E5");
  // The shortest entry that begins a short cluster stands for all of it ...
  EXPECT_EQ(normalized(map, "\u2460\u0301!"), "1!");
  // ... and the characters of a long one for themselves.
  EXPECT_EQ(normalized(map, "\u2460\u0301\u0301!"), "1\u0301\u0301!");
  EXPECT_EQ(normalized(map, "\r\n"), " ");
}

TEST(CharMap, KeepsTrackOfOrigins) {
  const CharMapNormalizer map(fixture_map(), "f");
  NormalizedText text(unicode::decode("x\u2122\x1E"
                                      "g"),
                      10);
  map.apply(text);
  EXPECT_EQ(unicode::encode(text.chars()), "xTMg");
  EXPECT_EQ(text.span(0, 1), (NormalizedText::Span{10, 11}));
  EXPECT_EQ(text.span(1, 2), (NormalizedText::Span{11, 12}));
  EXPECT_EQ(text.span(3, 4), (NormalizedText::Span{13, 14}));
}

TEST(CharMapErrors, SizesAreChecked) {
  const auto error = [](const std::string& map) {
    return error_text([&] { CharMapNormalizer(map, "f"); }, ErrorCode::Corrupt);
  };
  EXPECT_EQ(
      error(""),
      "f: the character map has 0 bytes and says that 0 of them are its trie; expected a trie "
      "of 4 bytes or more that fits");
  EXPECT_EQ(error(std::string("\x10\0\0\0\0\0\0\0", 8)),
            "f: the character map has 8 bytes and says that 16 of them are its trie; expected a "
            "trie of 4 bytes or more that fits");
  EXPECT_EQ(error(std::string("\x04\0\0\0\0\0\0\0a\xFF", 10)),
            "f: byte 1 of the character map's replacements is not valid UTF-8");
}

TEST(CharMapErrors, DamagedTriesStayWithinTheirMemory) {
  const std::string whole = fixture_map();
  uint32_t trie = 0;
  std::memcpy(&trie, whole.data(), 4);
  for (size_t at = 4; at < 4 + trie; at += 3) {
    for (const char change : {char(0xFF), char(0x01), char(0x80)}) {
      std::string map = whole;
      map[at] = char(map[at] ^ change);
      normalized(CharMapNormalizer(map, "f"),
                 "a e\u0301 \u2122 \uFF21 \u00BD \u3000 \xF0\x9F\x87\xA9");
    }
  }
}

TEST(CharMapErrors, Base64IsChecked) {
  EXPECT_EQ(decode_base64("TWFu", "f"), "Man");
  EXPECT_EQ(decode_base64("TWE=", "f"), "Ma");
  EXPECT_EQ(decode_base64("TQ==", "f"), "M");
  EXPECT_EQ(decode_base64("", "f"), "");
  EXPECT_EQ(error_text([] { decode_base64("TW*u", "f"); }, ErrorCode::Corrupt),
            "f: character 2 is not base64");
  EXPECT_EQ(error_text([] { decode_base64("TWE", "f"); }, ErrorCode::Corrupt),
            "f: 3 characters are not whole groups of base64");
}

TEST(Grapheme, EndsWhereTheStandardSays) {
  const std::pair<std::u32string, size_t> cases[] = {{U"ab", 1},
                                                     {U"\r\n", 2},
                                                     {U"\n\u0301", 1},
                                                     {U"e\u0301\u0302x", 3},
                                                     {U"\u0600a", 2},
                                                     {U"a\u200Db", 2},
                                                     {U"\u1100\u1161\u11A8", 3},
                                                     {U"\uAC00\u11A8", 2},
                                                     {U"\u11A8\u1161", 1},
                                                     {U"\u0915\u093Ex", 2},
                                                     {U"\U0001F1E9\U0001F1EA\U0001F1E9", 2},
                                                     {U"\U0001F469\u200D\U0001F467", 3},
                                                     {U"\u00A9\uFE0F\u200D\U0001F467!", 4},
                                                     {U"a\u200D\U0001F467", 2},
                                                     {U"a\u0897", 2},
                                                     {U"\u200B\u0301", 1},
                                                     {U"a\u200B", 1}};
  for (const auto& [text, size] : cases) {
    EXPECT_EQ(unicode::grapheme_end(text, 0), size) << unicode::encode(text);
  }
}

}  // namespace char_map_test
}  // namespace attune
