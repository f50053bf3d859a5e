#include "text/pattern.h"

#include "text/pattern_syntax.h"
#include "text/unicode.h"
#include "unit/text/folder.h"

namespace attune {
namespace pattern_test {

/// The matches of an expression as texts.
std::vector<std::string> matches(const std::string& expression, const std::string& text) {
  const Pattern pattern = Pattern::regex(expression, "f");
  Pattern::Matcher matcher(pattern);
  std::vector<Pattern::Range> found;
  matcher.find_bytes(text, found);
  std::vector<std::string> out;
  for (const auto& [begin, end] : found) {
    out.push_back(text.substr(size_t(begin), size_t(end - begin)));
  }
  return out;
}
using Texts = std::vector<std::string>;

TEST(Pattern, ClassesFollowUnicodeProperties) {
  EXPECT_EQ(matches(R"(\w+)", "a\u0301_9 ²-"), (Texts{"a\u0301_9", "²"}));
  EXPECT_EQ(matches(R"([\w]+)", "a²"), (Texts{"a"}));
  EXPECT_EQ(matches(R"(\s)", "\u180E\u2003\u0085"), (Texts{"\u2003", "\u0085"}));
  EXPECT_EQ(matches(R"(\d+)", "1\u0662x\u00B2"), (Texts{"1\u0662"}));
  EXPECT_EQ(matches(R"(\h+)", "face g"), (Texts{"face"}));
  EXPECT_EQ(matches(R"([[:punct:]]+)", "a$+.€"), (Texts{"$+.€"}));
  EXPECT_EQ(matches(R"([^\D7]+)", "675a"), (Texts{"6", "5"}));
}

TEST(Pattern, KnowsCharactersNewerThanItsLibrary) {
  // A letter, a digit, a mark and a sign of Unicode 15 and 16.
  const std::string letter = "\U00010D4A", digit = "\U00011F50", mark = "\U00010EFD",
                    sign = "\u2427";
  EXPECT_EQ(matches(R"(\p{L}+|\p{N}+)", "a" + letter + digit + "1"),
            (Texts{"a" + letter, digit + "1"}));
  EXPECT_EQ(matches(R"([^\s\p{L}\p{N}]+)", "a" + letter + sign + mark), (Texts{sign + mark}));
  EXPECT_EQ(matches(R"([\p{L}\p{M}]+|\p{S})", letter + mark + sign), (Texts{letter + mark, sign}));
  EXPECT_EQ(matches(R"(\P{L}+)", letter + "1" + digit), (Texts{"1" + digit}));
  EXPECT_EQ(matches(R"(\p{^L}|\pN)", letter + digit), (Texts{digit}));
  EXPECT_EQ(matches(R"(\p{Lu}|\p{Ll})", "\u1C89\u1C8A"), (Texts{"\u1C89", "\u1C8A"}));
}

TEST(Pattern, LinesAndFlagsMeanWhatOnigurumaMeans) {
  EXPECT_EQ(matches("^.|.$", "ab\ncd"), (Texts{"a", "b", "c", "d"}));
  EXPECT_EQ(matches("(?m:b.c)", "ab\ncd"), (Texts{"b\nc"}));
  EXPECT_EQ(matches("(?i:'s)", "'S 's '\u017F"), (Texts{"'S", "'s", "'\u017F"}));
}

TEST(Pattern, EmptyMatchesStandBetweenOthers) {
  EXPECT_EQ(matches("x*", "axé"), (Texts{"", "x", ""}));
  EXPECT_EQ(Pattern::literal("").find(U"abc").size(), 0u);
  EXPECT_EQ(Pattern::literal("é").find(U"éaéé").size(), 3u);
}

TEST(Pattern, LongRunsNeedNoDeepStack) {
  const std::string blanks(300000, ' ');
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", blanks + "a").size(), 2u);
  EXPECT_EQ(matches(R"((?:a|b)+c)", std::string(200000, 'a') + "c").size(), 1u);
}

TEST(PatternErrors, WhatPcre2CannotMeanIsUnsupported) {
  const auto error = [](const std::string& expression) {
    return error_text([&] { Pattern::regex(expression, "f: p"); }, ErrorCode::Unsupported);
  };
  EXPECT_EQ(error("[a[bc]]"),
            "f: p: cannot use the regular expression \"[a[bc]]\": a set within a set at byte 2 is "
            "not supported");
  EXPECT_EQ(error("[a&&b]"),
            "f: p: cannot use the regular expression \"[a&&b]\": an intersection of sets at byte 2 "
            "is not supported");
  EXPECT_EQ(error("[\\W]"),
            "f: p: cannot use the regular expression \"[\\W]\": \\W in a set at byte 3 is not "
            "supported");
  EXPECT_EQ(
      error("\\p{L"),
      "f: p: cannot use the regular expression \"\\p{L\": a property without end at byte 2 is "
      "not supported");
  EXPECT_EQ(
      error("(a"),
      "f: p: cannot use the regular expression \"(a\": missing closing parenthesis at byte 2");
}

TEST(PatternErrors, GivingUpIsToldApartFromNoMatch) {
  const std::string text(40, 'a');
  EXPECT_NE(error_text([&] { matches("(a+)+b|(a*)*c|(?:a|aa)+$x", text); }, ErrorCode::BadInput)
                .find("splitting a text of 40 bytes: the tokenizer's regular expression gave up"),
            std::string::npos);
}

}  // namespace pattern_test
}  // namespace attune
