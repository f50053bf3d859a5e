#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "folder.h"
#include "small_tokenizer.h"

namespace attune {
namespace tokenizer_test {

using nlohmann::json;
using Ids = std::vector<int32_t>;

TEST(Tokenizer, PutsSpecialTokensAroundText) {
  const Encoding encoding = load_json(small_tokenizer()).encode("Unable a.");
  EXPECT_EQ(encoding.ids, (Ids{2, 5, 6, 7, 11, 3}));
  EXPECT_EQ(encoding.word_ids, (Ids{-1, 0, 0, 1, 2, -1}));
  EXPECT_EQ(encoding.special_mask, (std::vector<uint8_t>{1, 0, 0, 0, 0, 1}));
  EXPECT_EQ(encoding.offsets[2], (std::pair<int32_t, int32_t>{2, 6}));
}

TEST(Tokenizer, TruncationCountsDroppedTokens) {
  const Tokenizer tokenizer = load_json(small_tokenizer());
  const Encoding one = tokenizer.encode("a b c d", {.max_length = 4});
  EXPECT_EQ(one.ids, (Ids{2, 7, 8, 3}));
  EXPECT_EQ(one.dropped, 2);
  const Encoding two = tokenizer.encode_pair("a b c d", "a b", {.max_length = 7});
  EXPECT_EQ(two.ids, (Ids{2, 7, 8, 3, 7, 8, 3}));
  EXPECT_EQ(two.dropped, 2);
}

TEST(Tokenizer, WithoutOffsetsEverythingElseIsTheSame) {
  const Tokenizer tokenizer = load_json(small_tokenizer());
  const Encoding with = tokenizer.encode("Un\u0301able [MASK] b");
  const Encoding without = tokenizer.encode("Un\u0301able [MASK] b", {.offsets = false});
  EXPECT_TRUE(without.offsets.empty());
  EXPECT_EQ(with.ids, without.ids);
  EXPECT_EQ(with.word_ids, without.word_ids);
}

TEST(Tokenizer, IgnoresTruncationAndPaddingOfTheFile) {
  json value = small_tokenizer();
  value["truncation"] = {{"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  value["padding"] = {{"strategy", {{"Fixed", 9}}}, {"pad_id", 0}};
  EXPECT_EQ(load_json(value).encode("a b c").ids.size(), 5u);
}

TEST(Tokenizer, ReadsVocabTxtByBertRules) {
  const TestFolder folder;
  folder.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nab\n##c\nAb\n");
  folder.write("tokenizer_config.json", R"({"do_lower_case": false, "model_max_length": 1e30})");
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.encode("Abc [MASK] x").ids, (Ids{2, 7, 6, 4, 1, 3}));
  EXPECT_EQ(tokenizer.model_max_length(), 0);
  EXPECT_EQ(tokenizer.vocab_size(), 8);
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer.fingerprint().size(), 64u);
}

TEST(Tokenizer, ConfigNamesSpecialTokens) {
  const TestFolder folder;
  folder.write("tokenizer.json", small_tokenizer().dump());
  folder.write("special_tokens_map.json",
               R"({"eos_token": {"content": "[SEP]"}, "pad_token": "d"})");
  folder.write("tokenizer_config.json", R"({"pad_token": "[PAD]", "model_max_length": 512})");
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 3);
  EXPECT_EQ(tokenizer.model_max_length(), 512);
  EXPECT_EQ(tokenizer.token(5), "un");
  EXPECT_EQ(tokenizer.id("##able"), 6);
  EXPECT_EQ(tokenizer.id("nothing"), std::nullopt);
}

TEST(Tokenizer, FingerprintFollowsContent) {
  json other = small_tokenizer();
  other["model"]["vocab"]["e"] = 13;
  EXPECT_NE(load_json(small_tokenizer()).fingerprint(), load_json(other).fingerprint());
  EXPECT_EQ(load_json(small_tokenizer()).fingerprint(), load_json(small_tokenizer()).fingerprint());
}

TEST(Tokenizer, DecodeDropsSpecialsAndBlanksBeforePunctuation) {
  const Tokenizer tokenizer = load_json(small_tokenizer());
  EXPECT_EQ(tokenizer.decode({2, 5, 6, 11, 3, 9999}), "unable.");
  EXPECT_EQ(tokenizer.decode({2, 7, 3}, false), "[CLS] a [SEP]");
}

TEST(Tokenizer, ThreadsAgree) {
  const Tokenizer tokenizer = load_json(small_tokenizer());
  const std::string text = "Unable éa \u0915\u094D \U0001F600 中 [MASK] d";
  const Encoding expected = load_json(small_tokenizer()).encode(text);
  std::vector<std::thread> threads;
  std::vector<Ids> found(8);
  for (Ids& ids : found) {
    threads.emplace_back([&] { ids = tokenizer.encode(text).ids; });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, expected.ids);
}

}  // namespace tokenizer_test
}  // namespace attune
