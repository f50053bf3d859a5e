#include "base/text.h"

#include <gtest/gtest.h>

namespace attune {
namespace text_test {

TEST(Text, SplitKeepsEmptyParts) {
  EXPECT_EQ(split("a,,b,", ','), (std::vector<std::string>{"a", "", "b", ""}));
  EXPECT_EQ(split("", ','), (std::vector<std::string>{""}));
  EXPECT_EQ(join({"a", "b", "c"}, ", "), "a, b, c");
  EXPECT_EQ(trim(" \t x y\r\n"), "x y");
  EXPECT_EQ(trim(" \n"), "");
}

TEST(Text, GlobsSelectSitesAcrossDots) {
  EXPECT_TRUE(glob_match("*.self.[qv]", "enc.3.self.q"));
  EXPECT_FALSE(glob_match("*.self.[qv]", "enc.3.self.k"));
  EXPECT_TRUE(glob_match("enc.[0-5].ffn.*", "enc.4.ffn.up"));
  EXPECT_FALSE(glob_match("enc.[0-5].ffn.*", "enc.6.ffn.up"));
  EXPECT_FALSE(glob_match("enc.[0-5].ffn.*", "enc.10.ffn.up"));
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("*.{self.q,ffn.{up,down}}", "enc.1.ffn.down"));
  EXPECT_FALSE(glob_match("*.{self.q,ffn.{up,down}}", "enc.1.ffn.gate"));
  EXPECT_TRUE(glob_match("l?yer", "layer"));
  EXPECT_FALSE(glob_match("l?yer", "lyer"));
  EXPECT_TRUE(glob_match("[!a]b", "cb"));
  EXPECT_FALSE(glob_match("[!a]b", "ab"));
  EXPECT_FALSE(glob_match("enc", "enc.1"));
  EXPECT_TRUE(glob_match("*a*b*c*", "xxaxxbxxcxx"));
  EXPECT_FALSE(glob_match("*a*b*c*", "xxaxxcxxbxx"));
}

TEST(Text, EditDistanceCountsASwapAsOne) {
  EXPECT_EQ(edit_distance("rank", "rnak"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("same", "same"), 0);
}

TEST(Text, SuggestionNamesTheNearestOrAll) {
  EXPECT_EQ(suggestion("rnak", {"alpha", "rank", "dropout"}), " did you mean \"rank\"?");
  EXPECT_EQ(suggestion("zzzzzzzz", {"alpha", "rank"}), " known: alpha, rank");
  EXPECT_EQ(suggestion("x", {}), " nothing is known here");
  EXPECT_EQ(nearest("lor", {"bias", "lora", "norms", "full"}, 2).front(), "lora");
}

TEST(Text, InvalidUtf8IsFoundAtItsOffset) {
  EXPECT_FALSE(invalid_utf8("plain, \xC3\xA9, \xE2\x82\xAC, \xF0\x9F\x98\x80"));
  EXPECT_EQ(invalid_utf8("ab\xFFz"), 2u);
  EXPECT_EQ(invalid_utf8("a\xC0\xAF"), 1u);         // overlong
  EXPECT_EQ(invalid_utf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(invalid_utf8("abc\xE2\x82"), 3u);       // cut
  EXPECT_EQ(code_points("\xC3\xA9\xF0\x9F\x98\x80x"), 3);
}

TEST(Text, FiguresAreWrittenForPeople) {
  EXPECT_EQ(with_thousands(1234567), "1,234,567");
  EXPECT_EQ(with_thousands(-1000), "-1,000");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1.5 * 1024 * 1024 * 1024), "1.5 GiB");
  EXPECT_EQ(human_seconds(192), "3m12s");
  EXPECT_EQ(human_seconds(3840), "1h04m");
  EXPECT_EQ(human_seconds(2.25), "2.2s");
  EXPECT_EQ(human_seconds(-1), "?");
}

}  // namespace text_test
}  // namespace attune
