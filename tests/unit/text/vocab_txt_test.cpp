// vocab.txt with what old folders have beside it. Ids and flags are those of transformers 5.23's
// BertTokenizer on the same folders, unless said.
#include "unit/text/folder.h"

namespace attune {
namespace vocab_txt_test {

using Ids = std::vector<int32_t>;

void write_vocabulary(const TestFolder& folder) {
  folder.write("vocab.txt",
               "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n##s\nnew\n<x>\nold\nab\n");
}

TEST(VocabTxt, TakesTokensOfAddedTokensJson) {
  const TestFolder folder;
  write_vocabulary(folder);
  folder.write("added_tokens.json", R"({"NEW1": 12, "<spec>": 13})");
  const Tokenizer tokenizer = folder.load();
  // Neither is special: both are found in the text as it was normalised.
  EXPECT_EQ(tokenizer.encode("Hello NEW1 new1 <Spec> <spec> ab worlds").ids,
            (Ids{2, 5, 12, 12, 13, 13, 11, 6, 7, 3}));
  EXPECT_EQ(tokenizer.vocab_size(), 14);
  EXPECT_EQ(tokenizer.decode({5, 13}), "hello <spec>");
}

TEST(VocabTxt, AddedTokensThatAreNamedSpecialAre) {
  const TestFolder folder;
  write_vocabulary(folder);
  folder.write("added_tokens.json", R"({"NEW1": 12, "<spec>": 13})");
  folder.write("tokenizer_config.json", R"({"additional_special_tokens": ["<spec>"]})");
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.encode("Hello NEW1 new1 <Spec> <spec> ab worlds").ids,
            (Ids{2, 5, 12, 12, 1, 1, 1, 13, 11, 6, 7, 3}));
  EXPECT_EQ(tokenizer.decode({5, 13}), "hello");
  // transformers 4 reads the other file in the same way, 5.23 does not.
  folder.write("tokenizer_config.json", "{}");
  folder.write("special_tokens_map.json", R"({"additional_special_tokens": ["<spec>"]})");
  EXPECT_EQ(folder.load().decode({5, 13}), "hello");
}

TEST(VocabTxt, TheNewerListCountsAlone) {
  const TestFolder folder;
  write_vocabulary(folder);
  folder.write("added_tokens.json", R"({"NEW1": 12, "<spec>": 13})");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"12": {"content": "ZZ"}}})");
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.vocab_size(), 13);
  EXPECT_EQ(tokenizer.encode("[MASK] zz new").ids, (Ids{2, 4, 12, 8, 3}));
}

TEST(VocabTxt, SpecialTokensMapNamesRoles) {
  const TestFolder folder;
  write_vocabulary(folder);
  folder.write("special_tokens_map.json",
               R"({"cls_token": "<x>", "mask_token": {"content": "ab"}, "unk_token": "old"})");
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.encode("[CLS] ab q").ids, (Ids{9, 10, 10, 10, 11, 10, 3}));
  EXPECT_EQ(tokenizer.decode({9, 5, 11}), "hello");
  EXPECT_EQ(tokenizer.mask_id(), 11);
  EXPECT_EQ(tokenizer.cls_id(), 9);
  EXPECT_EQ(tokenizer.unk_id(), 10);
}

TEST(VocabTxt, DamagedAddedTokensAreCorrupt) {
  const auto error = [](const std::string& list) {
    const TestFolder folder;
    write_vocabulary(folder);
    folder.write("added_tokens.json", list);
    return error_text([&] { folder.load(); }, ErrorCode::Corrupt, folder.path());
  };
  EXPECT_EQ(error("[1]"), "added_tokens.json: expected an object");
  EXPECT_EQ(error(R"({"a": "x"})"), "added_tokens.json: a: expected an integer, found \"x\"");
  EXPECT_EQ(error(R"({"a": -1})"),
            "added_tokens.json: a: added token has id -1; expected 0 or more");
}

TEST(VocabTxt, ClassesThatShareItsRulesAreRead) {
  for (const char* name :
       {"", "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast",
        "MobileBertTokenizer", "PreTrainedTokenizer", "PreTrainedTokenizerFast"}) {
    const TestFolder folder;
    write_vocabulary(folder);
    folder.write("tokenizer_config.json", std::string(R"({"tokenizer_class": ")") + name + "\"}");
    EXPECT_EQ(folder.load().encode("Hello worlds").ids, (Ids{2, 5, 6, 7, 3})) << name;
  }
}

TEST(VocabTxt, ClassesWithOtherRulesAreRefused) {
  const auto error = [](const std::string& file, const std::string& content) {
    const TestFolder folder;
    write_vocabulary(folder);
    folder.write(file, content);
    return error_text([&] { folder.load(); }, ErrorCode::Unsupported, folder.path());
  };
  EXPECT_EQ(error("tokenizer_config.json", R"({"tokenizer_class": "BertJapaneseTokenizer"})"),
            "vocab.txt: making the tokenizer of class BertJapaneseTokenizer from this file is not "
            "supported; save its tokenizer.json with transformers and put it beside");
  EXPECT_EQ(error("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})"),
            "vocab.txt: making the tokenizer of class GPT2Tokenizer from this file is not "
            "supported; save its tokenizer.json with transformers and put it beside");
  EXPECT_NE(
      error("config.json", R"({"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"})")
          .find("class BertJapaneseTokenizer"),
      std::string::npos);
  {
    const TestFolder folder;  // the class counts, whatever the model
    write_vocabulary(folder);
    folder.write("config.json", R"({"model_type": "t5", "tokenizer_class": "BertTokenizer"})");
    EXPECT_EQ(folder.load().encode("Hello worlds").ids, (Ids{2, 5, 6, 7, 3}));
  }
  EXPECT_EQ(error("config.json", R"({"model_type": "mpnet"})"),
            "vocab.txt: making the tokenizer of model type mpnet from this file is not supported; "
            "save its tokenizer.json with transformers and put it beside");
}

}  // namespace vocab_txt_test
}  // namespace attune
