#include "data/columns.h"

#include <gtest/gtest.h>

#include "support/temp_folder.h"

namespace attune {
namespace columns_test {

const TempFolder& no_folder() {
  static const TempFolder kFolder;
  return kFolder;
}

Record record(const std::string& json) {
  return {Json::parse(json), "data/train.jsonl", 17, true};
}

template <class Call>
std::string column_error(Call call) {
  return error_text(no_folder(), ErrorCode::BadInput, call);
}

TEST(Column, MissingColumnNamesPlaceColumnsAndNearest) {
  EXPECT_EQ(
      column_error([] { column(record(R"({"a":1,"b":2})"), "label"); }),
      "data/train.jsonl:17: no column \"label\"; the record has: a, b; data.columns says which "
      "is which, as {text: body, label: topic}");
  EXPECT_EQ(column_error([] { column(record(R"({"text":1,"lable":2})"), "label"); }),
            "data/train.jsonl:17: no column \"label\"; the record has: text, lable; did you mean "
            "\"lable\"?");
}

TEST(Column, PathsReachIntoObjects) {
  const Record row = record(R"({"a.b":1,"answers":{"text":["x"]}})");
  EXPECT_EQ(column(row, "a.b").get<int>(), 1);
  EXPECT_EQ(strings_of(row, "answers.text"), std::vector<std::string>{"x"});
  EXPECT_TRUE(has_column(row, "answers"));
  EXPECT_FALSE(has_column(row, "answers.no"));
  EXPECT_FALSE(has_column(record(R"({"a":null})"), "a"));
}

TEST(TextOf, NumbersAreTextOnlyWhenAsked) {
  const Record row = record(R"({"a":12,"b":"x","c":null})");
  EXPECT_EQ(text_of(row, "b"), "x");
  EXPECT_EQ(text_of(row, "a", true), "12");
  EXPECT_EQ(column_error([&] { text_of(row, "a"); }),
            "data/train.jsonl:17: column \"a\": expected text, found the number 12");
  EXPECT_EQ(column_error([&] { text_of(row, "c", true); }),
            "data/train.jsonl:17: column \"c\": expected text or a number, found null");
}

TEST(NumberOf, TextThatIsANumberCounts) {
  const Record row = record(R"({"a":1.5,"b":" -2e3 ","c":"1,5","d":"inf","e":[1]})");
  EXPECT_EQ(number_of(row, "a"), 1.5);
  EXPECT_EQ(number_of(row, "b"), -2000);
  EXPECT_EQ(column_error([&] { number_of(row, "c"); }),
            "data/train.jsonl:17: column \"c\": expected a number, found \"1,5\"");
  EXPECT_EQ(column_error([&] { number_of(row, "d"); }),
            "data/train.jsonl:17: column \"d\": expected a finite number, found \"inf\"");
  EXPECT_EQ(column_error([&] { number_of(row, "e"); }),
            "data/train.jsonl:17: column \"e\": expected a number, found a list of 1");
}

TEST(StringsOf, ListsAreCheckedItemByItem) {
  const Record row = record(R"({"a":["x","y"],"b":["x",{}],"c":true,"d":[1,2],"e":[1,2.5]})");
  EXPECT_EQ(strings_of(row, "a"), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(
      column_error([&] { strings_of(row, "b"); }),
      "data/train.jsonl:17: column \"b\": expected a list of texts, found an object at position 1");
  EXPECT_EQ(column_error([&] { strings_of(row, "c"); }),
            "data/train.jsonl:17: column \"c\": expected a list of texts, found true");
  EXPECT_EQ(integers_of(row, "d"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(
      column_error([&] { integers_of(row, "e"); }),
      "data/train.jsonl:17: column \"e\": expected a list of whole numbers, found the number 2.5 "
      "at position 1");
  EXPECT_EQ(column_error([&] { integers_of(row, "c"); }),
            "data/train.jsonl:17: column \"c\": expected a list of whole numbers, found true");
}

}  // namespace columns_test
}  // namespace attune
