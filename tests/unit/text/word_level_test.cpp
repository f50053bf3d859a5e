// A model of whole words, and what is shown of a text. (The other parts:
// tokenizer_compare_test.cpp.)
#include "unit/text/folder.h"

namespace attune {
namespace word_level_test {

using Ids = std::vector<int32_t>;

/// What transformers' decode() makes of it, and the plain package.
TEST(ShownText, IsCleanedUpWhereTheConfigSaysSo) {
  const nlohmann::json words = {{"<unk>", 0}, {"do", 1}, {"n't", 2}, {".", 3}, {"'", 4}, {"s", 5}};
  const nlohmann::json word_level = {
      {"model", {{"type", "WordLevel"}, {"vocab", words}, {"unk_token", "<unk>"}}},
      {"pre_tokenizer", {{"type", "Whitespace"}}}};
  const TestFolder folder;
  folder.write("tokenizer.json", word_level.dump());
  const Ids ids{1, 2, 3, 1, 4, 5, 3};
  EXPECT_EQ(folder.load().text(ids), "do n't . do ' s .");
  folder.write("tokenizer_config.json", R"({"clean_up_tokenization_spaces": true})");
  EXPECT_EQ(folder.load().text(ids), "don't. do's.");
  EXPECT_EQ(folder.load().decode(ids), "do n't . do ' s .");
  nlohmann::json bpe = word_level;
  bpe["model"] = {{"type", "BPE"}, {"vocab", words}, {"merges", nlohmann::json::array()}};
  folder.write("tokenizer.json", bpe.dump());
  EXPECT_EQ(folder.load().text(ids), "do n't . do ' s .");
}

TEST(WordLevelErrors, WithoutAnUnknownTokenOtherWordsAreRefused) {
  const nlohmann::json file = {{"model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}}},
                               {"pre_tokenizer", {{"type", "FixedLength"}, {"length", 1}}}};
  const TestFolder folder;
  folder.write("tokenizer.json", file.dump());
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.unk_id(), std::nullopt);
  EXPECT_EQ(error_text([&] { tokenizer.encode("ab"); }, ErrorCode::BadInput),
            "tokenizing \"b\": it is not in the vocabulary, which has no unknown token; give "
            "unk_token one of its words");
  nlohmann::json wrong = file;
  wrong["pre_tokenizer"]["length"] = 0;
  EXPECT_EQ(load_error(wrong, ErrorCode::Corrupt),
            "tokenizer.json: pre_tokenizer.length: expected 1 or more, found 0");
}

}  // namespace word_level_test
}  // namespace attune
