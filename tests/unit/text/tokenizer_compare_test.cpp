// Equality with the `tokenizers` package, on the committed fixture and, when
// ATTUNE_TOKENIZER_COMPARE names a folder written by tests/golden/tokenizer_compare.py, on as many
// texts as that holds.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer.h"

namespace attune {
namespace tokenizer_compare_test {

using nlohmann::json;
using Truncate = EncodeOptions::Truncate;

Truncate strategy(const json& row) {
  const std::string name = row.value("strategy", "longest_first");
  return name == "only_first"    ? Truncate::OnlyFirst
         : name == "only_second" ? Truncate::OnlySecond
                                 : Truncate::LongestFirst;
}

std::vector<Encoding> encode(const Tokenizer& tokenizer, const json& row) {
  const std::string kind = row["kind"], text = row["text"];
  EncodeOptions options;
  options.add_special_tokens = row["special_tokens"];
  options.truncate = strategy(row);
  options.max_length = row.value("max_length", 0);
  const int64_t stride = row.value("stride", 0);
  if (kind == "words") {
    return {tokenizer.encode_words(row["words"].get<std::vector<std::string>>(), options)};
  }
  if (kind == "windows") {
    return tokenizer.encode_windows(text, options.max_length, stride, options.add_special_tokens);
  }
  if (kind == "windows_pair") {
    return tokenizer.encode_windows(text, row["pair"].get<std::string>(), options.max_length,
                                    stride, options.truncate, options.add_special_tokens);
  }
  if (row.contains("pair")) {
    return {tokenizer.encode_pair(text, row["pair"].get<std::string>(), options)};
  }
  return {tokenizer.encode(text, options)};
}

json as_json(const Encoding& encoding) {
  json offsets = json::array();
  for (const auto& [begin, end] : encoding.offsets) {
    offsets.push_back(begin);
    offsets.push_back(end);
  }
  return {{"ids", encoding.ids},
          {"type_ids", encoding.type_ids},
          {"word_ids", encoding.word_ids},
          {"sequence_ids", encoding.sequence_ids},
          {"offsets", offsets},
          {"special", encoding.special_mask}};
}

json as_json(const std::vector<Encoding>& encodings) {
  json out = json::array();
  for (const Encoding& encoding : encodings) out.push_back(as_json(encoding));
  return out;
}

/// Decoding of arbitrary ids, and of the same ids one after another.
void compare_decoding(const Tokenizer& tokenizer, const json& row) {
  const std::vector<int32_t> ids = row["ids"].get<std::vector<int32_t>>();
  EXPECT_EQ(tokenizer.decode(ids), row["ids_decoded"]) << row;
  TextStream stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.add(id);
  EXPECT_EQ(text + stream.finish(), row["ids_decoded"]) << row;
}

std::vector<std::string> tokens(const Tokenizer& tokenizer, const Encoding& encoding) {
  std::vector<std::string> out;
  for (const int32_t id : encoding.ids) out.push_back(tokenizer.token(id));
  return out;
}

void compare(const Tokenizer& tokenizer, const json& row) {
  if (row.contains("ids")) compare_decoding(tokenizer, row);
  if (row.contains("error")) {
    EXPECT_THROW(encode(tokenizer, row), Error) << row;
    return;
  }
  const std::vector<Encoding> found = encode(tokenizer, row);
  EXPECT_EQ(as_json(found), row["encodings"]) << row;
  if (row.contains("tokens")) {
    EXPECT_EQ(json(tokens(tokenizer, found[0])), row["tokens"]) << row;
  }
  EXPECT_EQ(tokenizer.decode(found[0].ids), row["decoded"]) << row;
  EXPECT_EQ(tokenizer.decode(found[0].ids, false), row["decoded_all"]) << row;
}

int compare_all(const std::filesystem::path& folder) {
  const Tokenizer tokenizer = Tokenizer::load(folder.string());
  std::ifstream file(folder / "reference.jsonl");
  std::string line;
  int rows = 0;
  while (std::getline(file, line) && !testing::Test::HasFailure()) {
    compare(tokenizer, json::parse(line));
    ++rows;
  }
  return rows;
}

TEST(TokenizerCompare, SmallFixtureEqualsReference) {
  EXPECT_EQ(compare_all(std::filesystem::path(ATTUNE_TEST_DATA) / "tokenizer_small"), 400);
}

TEST(TokenizerCompare, SmallFixturesOfEveryKindEqualReference) {
  for (const char* kind : {"gpt2", "llama3", "llama2", "t5", "xlmr", "word_level", "fixed_length",
                           "files_llama", "files_t5"}) {
    SCOPED_TRACE(kind);
    EXPECT_EQ(compare_all(std::filesystem::path(ATTUNE_TEST_DATA) / "tokenizers" / kind), 90);
  }
}

TEST(TokenizerCompare, FolderOfEnvironmentEqualsReference) {
  const char* root = std::getenv("ATTUNE_TOKENIZER_COMPARE");
  if (root == nullptr) GTEST_SKIP() << "set ATTUNE_TOKENIZER_COMPARE to a folder of references";
  int rows = 0;
  for (const std::filesystem::directory_entry& entry : std::filesystem::directory_iterator(root)) {
    if (!std::filesystem::exists(entry.path() / "reference.jsonl")) continue;
    SCOPED_TRACE(entry.path().string());
    rows += compare_all(entry.path());
  }
  EXPECT_GT(rows, 0);
  RecordProperty("rows", rows);
}

}  // namespace tokenizer_compare_test
}  // namespace attune
