// Documents cut into windows for next-token prediction.
#include "tasks/token_windows.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "support/temp_folder.h"

namespace attune {
namespace token_windows_test {

const std::string kTiny = std::string(ATTUNE_SOURCE_DIR) + "/examples/models/llama-tiny";
constexpr int32_t kBegin = 0;

class TokenWindowsTest : public ::testing::Test {
 protected:
  TokenWindows windows(const std::string& name, const std::string& content, int64_t length) {
    data_ = Dataset::open(folder_.write(name, content));
    return {*data_, tokenizer_, length, [](const Record&) { return std::string("text"); }};
  }
  std::vector<int32_t> ids(const std::string& text) const { return tokenizer_.encode(text).ids; }

  TempFolder folder_;
  Tokenizer tokenizer_ = Tokenizer::load(kTiny);
  std::optional<Dataset> data_;
};

/// The tokens that the windows of a text predict, in order, with those that come first.
std::vector<int32_t> joined(const TokenWindows& windows) {
  std::vector<int32_t> all;
  for (int64_t i = 0; i < windows.size(); ++i) {
    const Example example = windows.example(i);
    if (all.empty()) all.push_back(example.ids.front());
    EXPECT_EQ(example.ids.front(), all.back());
    EXPECT_EQ(example.labels.size(), example.ids.size());
    EXPECT_EQ(example.labels.back(), -100);
    for (size_t r = 0; r + 1 < example.ids.size(); ++r) {
      EXPECT_EQ(example.labels[r], example.ids[r + 1]);
      all.push_back(example.ids[r + 1]);
    }
  }
  return all;
}

TEST_F(TokenWindowsTest, EveryTokenButTheFirstIsPredictedOnceWithItsWordsAndBytes) {
  const std::string text =
      "What is the city but the people? Caf\xC3\xA9 \xE2\x82\xAC 5.\nTrue,\tthe  people.";
  for (const int64_t length : {2, 3, 7, 50}) {
    const TokenWindows found =
        windows("a.jsonl", "{\"text\": " + Json(text).dump() + "}\n", length);
    EXPECT_EQ(joined(found), ids(text)) << length;
    int64_t bytes = 0, words = 0;
    for (int64_t i = 0; i < found.size(); ++i) {
      EXPECT_LE(found.example(i).rows(), length);
      bytes += found.example(i).bytes;
      words += found.example(i).words;
    }
    std::istringstream stream(text);
    int64_t expected = 0;
    for (std::string word; stream >> word;) ++expected;
    EXPECT_EQ(bytes, static_cast<int64_t>(text.size())) << length;
    EXPECT_EQ(words, expected) << length;
  }
}

TEST_F(TokenWindowsTest, RowsAreDocumentsOfTheirOwn) {
  const TokenWindows found =
      windows("a.jsonl", "{\"text\": \"one two\"}\n{\"text\": \"\"}\n{\"text\": \"three\"}\n", 64);
  EXPECT_EQ(found.documents(), 3);
  ASSERT_EQ(found.size(), 2);  // the empty one has nothing to predict
  EXPECT_EQ(found.example(0).ids, ids("one two"));
  EXPECT_EQ(found.example(1).ids, ids("three"));
  EXPECT_EQ(found.row(1), 2);
  EXPECT_EQ(found.example(1).words, 1);
}

TEST_F(TokenWindowsTest, APlainTextFileIsOneDocument) {
  const std::string text = "First Citizen:\nBefore we proceed.\n\nAll:\nSpeak, speak.\n";
  const TokenWindows found = windows("a.txt", text, 6);
  EXPECT_EQ(found.documents(), 1);
  EXPECT_EQ(joined(found), ids(text));
  EXPECT_EQ(found.example(0).ids.front(), kBegin);
  EXPECT_EQ(found.row(0), 0);
  EXPECT_EQ(found.row(found.size() - 1), 4);  // the line in which the last window starts
}

TEST_F(TokenWindowsTest, LongTextIsTokenisedInPartsThatChangeNothing) {
  std::string text;
  for (int i = 0; text.size() < (size_t{3} << 20); ++i)
    text += "Line " + std::to_string(i) + " of a play,\nmy lord.\n\n";
  const TokenWindows found = windows("a.txt", text, 256);
  EXPECT_EQ(joined(found), ids(text));
}

TEST_F(TokenWindowsTest, SaysWhatIsWrong) {
  const auto text_of_error = [&](const std::string& name, const std::string& content,
                                 int64_t length) {
    try {
      windows(name, content, length);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::BadInput);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(text_of_error("a.jsonl", "{\"text\": \"a b\"}\n", 1),
            "data.max_length: 1 tokens a window; predicting the next token takes at least 2");
  EXPECT_EQ(text_of_error("b.jsonl", "{\"text\": \"\"}\n", 8),
            folder_.file("b.jsonl") +
                ":1: no text has two tokens or more, so there is no next token to predict");
  EXPECT_NE(text_of_error("c.jsonl", "{\"title\": \"a\"}\n", 8).find(":1: no column \"text\""),
            std::string::npos);
}

}  // namespace token_windows_test
}  // namespace attune
