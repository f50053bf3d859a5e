#include "text/decoder.h"

#include "text/byte_level.h"
#include "text/unicode.h"
#include "unit/text/folder.h"

namespace attune {
namespace decoder_test {

using nlohmann::json;
using Tokens = std::vector<std::string>;

std::string decode(const json& decoder, const Tokens& tokens) {
  return make_decoder({decoder, "f", "decoder"})->decode(tokens);
}

TEST(Decoder, ByteLevelTurnsCharactersBackIntoBytes) {
  const json decoder = {{"type", "ByteLevel"}};
  EXPECT_EQ(decode(decoder, {byte_level::encode("Hé"), byte_level::encode(" \n")}), "Hé \n");
  // A token that is no byte text is taken as it is; bytes that are no UTF-8 become U+FFFD.
  EXPECT_EQ(decode(decoder, {"a b", byte_level::encode("\xE5\x8F"), byte_level::encode("c")}),
            "a b\uFFFDc");
}

TEST(Decoder, ByteLevelIsOneToOne) {
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = byte_level::to_char(uint8_t(byte));
    EXPECT_EQ(byte_level::to_byte(c), byte);
    EXPECT_FALSE(unicode::is_white(c));
  }
  EXPECT_EQ(byte_level::to_char(' '), U'\u0120');
  EXPECT_EQ(byte_level::to_char('\n'), U'\u010A');
  EXPECT_EQ(byte_level::to_byte(0x144), -1);
  EXPECT_EQ(byte_level::to_byte(0xAD), -1);
}

TEST(Decoder, ByteFallbackKeepsRunsTogether) {
  const json decoder = {{"type", "ByteFallback"}};
  EXPECT_EQ(decode(decoder, {"<0xE5>", "<0x8f>", "<0xAB>", "a"}), "\u53EBa");
  EXPECT_EQ(decode(decoder, {"<0x41>", "<0xE5>", "a"}), "\uFFFD\uFFFDa");
  EXPECT_EQ(decode(decoder, {"<0xEF>", "<0xBF>", "<0xBD>"}), "\uFFFD");
  EXPECT_EQ(decode(decoder, {"<0xG0>", "<0x4>"}), "<0xG0><0x4>");
}

TEST(Decoder, MetaspaceDropsTheMarkOfTheFirstToken) {
  json decoder = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
  const Tokens tokens = {"\u2581a\u2581b", "\u2581c"};
  EXPECT_EQ(decode(decoder, tokens), "ab c");
  decoder["prepend_scheme"] = "never";
  EXPECT_EQ(decode(decoder, tokens), " a b c");
}

TEST(Decoder, StripTakesUpToSoManyOffEachEnd) {
  const json decoder = {{"type", "Strip"}, {"content", "é"}, {"start", 1}, {"stop", 2}};
  EXPECT_EQ(decode(decoder, {"ééaééé", "b", "é"}), "éaéb");
}

TEST(Decoder, SequencesReplaceFuseAndJoin) {
  const json replace = {{"type", "Replace"}, {"pattern", {{"Regex", "[xy]+"}}}, {"content", " "}};
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  json decoder = {{"type", "Sequence"},
                  {"decoders", json::array({replace, {{"type", "Fuse"}}, strip})}};
  EXPECT_EQ(decode(decoder, {"xa", "xyb"}), "a b");
  EXPECT_FALSE(make_decoder({decoder, "f", "decoder"})->joins_bytes());
  decoder["decoders"].push_back({{"type", "ByteFallback"}});
  EXPECT_TRUE(make_decoder({decoder, "f", "decoder"})->joins_bytes());
  EXPECT_EQ(decode({{"type", "BPEDecoder"}, {"suffix", "</w>"}}, {"a", "b</w>", "c</w>"}), "ab c");
  EXPECT_EQ(decode(json(), {"a", "b"}), "a b");
}

TEST(Decoder, LossyTextReplacesMaximalParts) {
  const std::pair<std::string, std::string> cases[] = {
      {"a\xC3\xA9", "aé"},
      {"\x80\x80", "\uFFFD\uFFFD"},
      {"\xE2\x82", "\uFFFD"},
      {"\xE2\x82z", "\uFFFDz"},
      {"\xF0\x9F\x98", "\uFFFD"},
      {"\xF0\x8F\x80", "\uFFFD\uFFFD\uFFFD"},            // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // beyond U+10FFFF
      {"\xC0\xAF\xFF", "\uFFFD\uFFFD\uFFFD"},
      {"\xE2\x82\xE2\x82\xAC", "\uFFFD€"}};
  for (const auto& [bytes, expected] : cases) {
    std::string out;
    unicode::append_lossy(out, bytes);
    EXPECT_EQ(out, expected);
  }
}

TEST(DecoderErrors, MalformedOnesAreCorrupt) {
  const auto error = [](const json& decoder) {
    return error_text([&] { make_decoder({decoder, "f", "decoder"}); }, ErrorCode::Corrupt);
  };
  EXPECT_EQ(error({{"type", "Strip"}, {"content", "ab"}, {"start", 1}, {"stop", 0}}),
            "f: decoder.content: expected one character, found \"ab\"");
  EXPECT_EQ(error({{"type", "Metaspace"}, {"replacement", ""}}),
            "f: decoder.replacement: expected one character, found 0");
  EXPECT_EQ(error({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "sometimes"}}),
            "f: decoder.prepend_scheme: expected always, first or never, found \"sometimes\"");
  EXPECT_EQ(
      error({{"type", "Metaspace"},
             {"replacement", "_"},
             {"prepend_scheme", "first"},
             {"add_prefix_space", false}}),
      "f: decoder: add_prefix_space is false, but prepend_scheme is \"first\"; expected never");
}

}  // namespace decoder_test
}  // namespace attune
