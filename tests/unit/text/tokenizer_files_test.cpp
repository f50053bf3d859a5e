// Folders without tokenizer.json beside SentencePiece's, and what tokenizer.json may leave out.
#include "unit/text/folder.h"

namespace attune {
namespace tokenizer_files_test {

using nlohmann::json;
using Ids = std::vector<int32_t>;

void write_gpt2(const TestFolder& folder) {
  folder.write("vocab.json", R"({"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4, "<|endoftext|>": 5})");
  folder.write("merges.txt", "#version: 0.2\na b\r\nĠ ab\n");
}

TEST(BpeFiles, AreReadByTheRulesOfGpt2) {
  const TestFolder folder;
  write_gpt2(folder);
  const Tokenizer tokenizer = folder.load();
  EXPECT_EQ(tokenizer.encode("ab ab<|endoftext|>a").ids, (Ids{3, 4, 5, 0}));
  EXPECT_EQ(tokenizer.decode({3, 4, 5}), "ab ab");
  EXPECT_EQ(tokenizer.eos_id(), 5);
  EXPECT_EQ(tokenizer.bos_id(), 5);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer.encode_pair("a", "b").type_ids, (Ids{0, 1}));
}

TEST(BpeFiles, RobertaPutsItsTokensAroundAndTrimsOffsets) {
  const TestFolder folder;
  write_gpt2(folder);
  folder.write("config.json", R"({"model_type": "roberta"})");
  const Tokenizer tokenizer = folder.load();
  const Encoding encoding = tokenizer.encode("a ab");
  // <s> </s> <unk> <pad> <mask> have the next free ids.
  EXPECT_EQ(encoding.ids, (Ids{6, 0, 4, 7}));
  EXPECT_EQ(encoding.offsets[2], (std::pair<int32_t, int32_t>{2, 4}));
  EXPECT_EQ(tokenizer.mask_id(), 10);
  EXPECT_EQ(tokenizer.encode_pair("a", "b").ids, (Ids{6, 0, 7, 7, 1, 7}));
}

TEST(BpeFilesErrors, DamagedFilesNameTheLine) {
  const auto error = [](const std::string& vocabulary, const std::string& merges) {
    const TestFolder folder;
    folder.write("vocab.json", vocabulary);
    folder.write("merges.txt", merges);
    return error_text([&] { folder.load(); }, ErrorCode::Corrupt, folder.path());
  };
  EXPECT_EQ(error(R"({"a": 0})", "a b c\n"),
            "merges.txt:1: found \"a b c\"; expected two pieces with a blank between them");
  EXPECT_EQ(error(R"({"a": 0})", "#version: 0.2\n\na\n"),
            "merges.txt:3: found \"a\"; expected two pieces with a blank between them");
  EXPECT_EQ(error(R"({"a": "x"})", ""),
            "vocab.json: piece \"a\" has id \"x\"; expected an integer, 0 or more");
  EXPECT_EQ(error("[1]", ""), "vocab.json: expected an object of pieces and their ids");
  EXPECT_EQ(error(R"({"a": 0)", ""),
            "vocab.json:1:8: the file is not complete JSON (7 bytes, error at byte 7); copy or "
            "download it again");
  EXPECT_EQ(error(R"({"a": 0, "b": 1})", "a b\n"),
            "vocab.json.merges[0]: joining \"a\" and \"b\" needs the piece \"ab\", which is not in "
            "the vocabulary of 2 pieces");
}

TEST(BpeFilesErrors, SpecialTokensMustFit) {
  const auto error = [](const std::string& config) {
    const TestFolder folder;
    write_gpt2(folder);
    folder.write("tokenizer_config.json", config);
    return error_text([&] { folder.load(); }, ErrorCode::Corrupt, folder.path());
  };
  EXPECT_EQ(error(R"({"tokenizer_class": "RobertaTokenizer", "cls_token": "a cls"})"),
            ": the special token \"cls\" is not in the vocabulary");
  EXPECT_EQ(
      error(R"({"added_tokens_decoder": {"9999999": {"content": "<far>"}}})"),
      ": added token \"<far>\" has id 9999999, but ids are counted from 0 without large gaps");
}

json byte_level_file() {
  json out = {{"model", {{"type", "BPE"}, {"vocab", json::object()}, {"merges", json::array()}}},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
              {"decoder", {{"type", "ByteLevel"}}}};
  int id = 0;
  for (const char* piece : {"a", "b", "Ġ", "Ġa", "Ã", "©"}) out["model"]["vocab"][piece] = id++;
  out["model"]["merges"] = {"Ġ a"};
  return out;
}

TEST(SpecialTokens, UsualNamesCountWhenTheyAreSpecial) {
  json value = byte_level_file();
  value["added_tokens"] = {{{"id", 6}, {"content", "<|begin_of_text|>"}, {"special", true}},
                           {{"id", 7}, {"content", "<|end_of_text|>"}, {"special", true}},
                           {{"id", 8}, {"content", "<pad>"}, {"special", false}}};
  const Tokenizer tokenizer = load_json(value);
  EXPECT_EQ(tokenizer.bos_id(), 6);
  EXPECT_EQ(tokenizer.eos_id(), 7);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer.unk_id(), std::nullopt);
}

TEST(PostProcessor, ByteLevelTrimsBeforeATemplate) {
  json value = byte_level_file();
  const json trim = {{"type", "ByteLevel"}, {"trim_offsets", true}, {"add_prefix_space", false}};
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
             second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}},
             special = {{"SpecialToken", {{"id", "a"}, {"type_id", 0}}}};
  const json layout = {{"type", "TemplateProcessing"},
                       {"single", json::array({special, sequence})},
                       {"pair", json::array({sequence, second})},
                       {"special_tokens", {{"a", {{"ids", {0}}}}}}};
  value["post_processor"] = {{"type", "Sequence"}, {"processors", json::array({trim, layout})}};
  const Encoding encoding = load_json(value).encode(" a  b");
  EXPECT_EQ(encoding.ids, (Ids{0, 3, 2, 2, 1}));
  EXPECT_EQ(encoding.offsets,
            (std::vector<std::pair<int32_t, int32_t>>{{0, 0}, {1, 2}, {3, 3}, {4, 4}, {4, 5}}));
  value["post_processor"]["processors"].push_back(layout);
  EXPECT_EQ(load_error(value, ErrorCode::Unsupported),
            "tokenizer.json: post_processor: a sequence of several post-processors that put in "
            "special tokens is not supported; expected one, beside ByteLevel");
}

TEST(TextStream, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = load_json(byte_level_file());
  TextStream stream(tokenizer);
  EXPECT_EQ(stream.add(0), "a");
  EXPECT_EQ(stream.add(4), "");
  EXPECT_EQ(stream.add(5), "é");
  EXPECT_EQ(stream.add(3), " a");
  EXPECT_EQ(stream.add(4), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.add(3), " a");
}

TEST(TextStream, HoldsBackRunsOfByteTokens) {
  json value = {{"model",
                 {{"type", "BPE"},
                  {"vocab", {{"\u2581a", 0}, {"<0x41>", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}}},
                  {"merges", json::array()}}},
                {"added_tokens", {{{"id", 4}, {"content", "</s>"}, {"special", true}}}}};
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  value["decoder"] = {
      {"type", "Sequence"},
      {"decoders", json::array({replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, strip})}};
  const Tokenizer tokenizer = load_json(value);
  TextStream stream(tokenizer);
  EXPECT_EQ(stream.add(0), "a");
  EXPECT_EQ(stream.add(1), "");
  EXPECT_EQ(stream.add(4), "");  // a special token does not end the run
  EXPECT_EQ(stream.add(2), "");
  EXPECT_EQ(stream.add(0), "\uFFFD\uFFFD a");
  EXPECT_EQ(stream.add(2), "");
  EXPECT_EQ(stream.add(3), "");
  EXPECT_EQ(stream.finish(), "é");
  EXPECT_EQ(tokenizer.decode({0, 1, 2, 0, 2, 3}), "a\uFFFD\uFFFD aé");
}

TEST(Metaspace, PrependsAlwaysFirstOrNever) {
  json value = {{"model",
                 {{"type", "Unigram"},
                  {"unk_id", 0},
                  {"vocab", json::array({json::array({"<unk>", 0}), json::array({"\u2581", -1}),
                                         json::array({"a", -1}), json::array({"\u2581a", -1})})}}},
                {"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "\u2581"}}},
                {"added_tokens", {{{"id", 4}, {"content", "<x>"}, {"special", true}}}}};
  EXPECT_EQ(load_json(value).encode("a<x>a  a").ids, (Ids{3, 4, 3, 1, 3}));
  value["pre_tokenizer"]["prepend_scheme"] = "first";
  EXPECT_EQ(load_json(value).encode("a<x>a  a").ids, (Ids{3, 4, 2, 1, 3}));
  value["pre_tokenizer"].erase("prepend_scheme");
  value["pre_tokenizer"]["add_prefix_space"] = false;
  EXPECT_EQ(load_json(value).encode("a<x>a  a").ids, (Ids{2, 4, 2, 1, 3}));
  value["pre_tokenizer"]["split"] = false;
  EXPECT_EQ(load_json(value).encode("a a").word_ids, (Ids{0, 0}));
}

}  // namespace tokenizer_files_test
}  // namespace attune
