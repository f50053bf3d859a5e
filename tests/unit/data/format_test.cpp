// What data without a telling name are read as.
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/records.h"
#include "support/temp_folder.h"

namespace attune {
namespace format_test {

/// The format found for a file whose name says nothing.
std::string found(std::string_view content) {
  const TempFolder folder;
  return Dataset::open(folder.write("data", content)).format_name();
}

TEST(Format, ACommaInQuotesSeparatesNothing) {
  const std::string rows = "text,label\n\"one, two\",a\nthree,b\n";
  EXPECT_EQ(found(rows), "csv");
  const TempFolder folder;
  const Dataset data = Dataset::open(folder.write("data", rows));
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(data.at(0).value["text"], "one, two");
  EXPECT_EQ(found("text,label\n\"a line\nand, another\",a\nthree,b\n"), "csv");
}

TEST(Format, UnevenFieldsArePlainText) {
  EXPECT_EQ(found("text,label\none, two,a\nthree,b\n"), "text");
  EXPECT_EQ(found("first,second\n\"said\" he, and, then\nleft, too\n"), "text");
  EXPECT_EQ(found("one\ntwo\n"), "text");
}

/// Else a header and its rows would be taken for texts, without a word.
TEST(Format, AQuoteOutOfPlaceIsForCsvToReport) {
  const auto problem = [](std::string_view content) -> std::string {
    try {
      return found(content);
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_NE(problem("text,label\n\"Good\" movie,pos\nbad,neg\n")
                .find("data:2:7: text after a closing quote"),
            std::string::npos);
  EXPECT_NE(problem("first,second\n\"never closed, it\nwent, on\n").find("data:2"),
            std::string::npos);
}

TEST(Format, TabsAreTsvWhateverTheQuotes) {
  EXPECT_EQ(found("text\tlabel\n5\" nails\ta\n\"open\tb\n"), "tsv");
  EXPECT_EQ(found("text\tlabel\n\"a\tb\"\tx\nc\td\n"), "tsv");
}

}  // namespace format_test
}  // namespace attune
