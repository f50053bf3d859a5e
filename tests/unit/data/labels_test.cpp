#include "data/labels.h"

#include <gtest/gtest.h>

#include "support/temp_folder.h"

namespace attune {
namespace labels_test {

using Names = std::vector<std::string>;

Record row(const std::string& label, int64_t line, bool typed = true) {
  return {Json::parse("{\"label\":" + label + "}"), "train.jsonl", line, typed};
}

LabelSet collect(const Names& labels, bool typed = true, LabelSet set = LabelSet()) {
  int64_t line = 0;
  for (const std::string& label : labels) set.add(row(label, ++line, typed), "label");
  return set;
}

template <class Call>
std::string label_error(Call call) {
  static const TempFolder kFolder;
  return error_text(kFolder, ErrorCode::BadInput, call);
}

TEST(LabelSet, TextIsOrderedByFirstAppearance) {
  LabelSet set = collect({"\"pos\"", "\"neg\"", "\"pos\"", "\"2\""});
  set.finish();
  EXPECT_EQ(set.names(), (Names{"pos", "neg", "2"}));
  EXPECT_EQ(set.counts(), (std::vector<int64_t>{2, 1, 1}));
  EXPECT_EQ(set.id(row("\"neg\"", 1), "label"), 1);
  EXPECT_EQ(set.id_of("2", "here"), 2);
}

TEST(LabelSet, WholeNumbersAreOrderedByValue) {
  LabelSet set = collect({"10", "9", "-1", "10"});
  set.finish();
  EXPECT_EQ(set.names(), (Names{"-1", "9", "10"}));
  EXPECT_EQ(set.counts(), (std::vector<int64_t>{1, 1, 2}));
  EXPECT_EQ(set.id(row("10", 1), "label"), 2);
  LabelSet csv = collect({"\"10\"", "\"9\""}, false);
  csv.finish();
  EXPECT_EQ(csv.names(), (Names{"9", "10"}));
}

TEST(LabelSet, GivenOrderWinsAndItsNumbersAreIds) {
  LabelSet set = collect({"\"neg\"", "2"}, true, LabelSet({"pos", "neutral", "neg"}));
  set.finish();
  EXPECT_EQ(set.names(), (Names{"pos", "neutral", "neg"}));
  EXPECT_EQ(set.id(row("\"neg\"", 1), "label"), 2);
  EXPECT_EQ(set.id(row("0", 1), "label"), 0);
  EXPECT_EQ(set.counts(), (std::vector<int64_t>{0, 0, 2}));
  EXPECT_EQ(label_error([&] { set.add(row("3", 8), "label"); }),
            "label \"3\" at train.jsonl:8 is none of the given labels; known: pos, neutral, neg");
  EXPECT_EQ(label_error([] {
              LabelSet({"a", "a"});
            }),
            "the given order of labels names one twice: a, a");
}

TEST(LabelSet, AmongNumbersAnotherNumberIsNoId) {
  const LabelSet ratings({"1", "2", "3", "4", "5"});
  EXPECT_EQ(ratings.id(row("1", 1), "label"), 0);
  EXPECT_EQ(
      label_error([&] { ratings.id(row("0", 8), "label"); }),
      "label \"0\" at train.jsonl:8 does not occur in the training data; known: 1, 2, 3, 4, 5");
}

TEST(LabelSet, NumbersAndTextInOneColumnAreRefusedNamingBothRows) {
  const std::string expected =
      "column \"label\" is a number at train.jsonl:2 (1) and text at train.jsonl:1 (pos); expected "
      "one "
      "kind: correct the rows, or list the labels in the recipe";
  EXPECT_EQ(label_error([] { collect({"\"pos\"", "1"}); }), expected);
  EXPECT_EQ(label_error([] { collect({"\"pos\"", "\"1\""}, false); }), expected);
}

TEST(LabelSet, UnseenLabelIsNamedWithItsRow) {
  LabelSet set = collect({"\"a\"", "\"b\""});
  set.finish();
  EXPECT_EQ(label_error([&] {
              set.id({Json::parse(R"({"label":"x"})"), "eval.jsonl", 3, true}, "label");
            }),
            "label \"x\" at eval.jsonl:3 does not occur in the training data; known: a, b");
  EXPECT_EQ(label_error([&] {
              set.ids({Json::parse(R"({"label":["a","x"]})"), "eval.jsonl", 3, true}, "label");
            }),
            "label \"x\" at eval.jsonl:3 does not occur in the training data; known: a, b");
  EXPECT_EQ(label_error([&] { set.id_of("x", "recipe.yaml:4:2"); }),
            "label \"x\" at recipe.yaml:4:2 does not occur in the training data; known: a, b");
}

TEST(LabelSet, WholeNumbersOfAnySizeAreInNumericOrder) {
  LabelSet set =
      collect({"18446744073709551615", "9223372036854775808", "-3", "20", "-20", "3", "0"});
  set.finish();
  EXPECT_EQ(set.names(),
            (Names{"-20", "-3", "0", "3", "20", "9223372036854775808", "18446744073709551615"}));
}

TEST(LabelSet, OneClassIsRefusedUnlessAllowed) {
  LabelSet set = collect({"\"a\"", "\"a\""});
  EXPECT_EQ(
      label_error([&] { set.finish(); }),
      "the training data has 1 different label: a; expected at least 2: is this the right column?");
  EXPECT_NO_THROW(set.finish(1));
}

TEST(LabelSet, ListsAreSeveralLabels) {
  LabelSet set = collect({"[\"a\",\"b\"]", "[]", "[\"c\",\"a\"]"});
  set.finish();
  EXPECT_EQ(set.names(), (Names{"a", "b", "c"}));
  EXPECT_EQ(set.ids(row("[\"c\",\"a\"]", 1), "label"), (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(set.ids(row("\"b\"", 1), "label"), (std::vector<int64_t>{1}));
}

TEST(LabelSet, OtherKindsOfValuesAreRefused) {
  EXPECT_EQ(label_error([] { collect({"1.5"}); }),
            "train.jsonl:1: column \"label\": expected a label (text or a whole number), found the "
            "number "
            "1.5");
  EXPECT_EQ(label_error([] { collect({"\" \""}); }),
            "train.jsonl:1: column \"label\": the label is empty");
  LabelSet set = collect({"true", "false"});
  set.finish();
  EXPECT_EQ(set.names(), (Names{"true", "false"}));
}

}  // namespace labels_test
}  // namespace attune
