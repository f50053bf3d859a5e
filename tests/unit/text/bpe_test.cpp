#include "text/bpe.h"

#include <random>

#include "text/byte_level.h"
#include "text/unicode.h"
#include "unit/text/folder.h"

namespace attune {
namespace bpe_test {

using nlohmann::json;
using Pairs = std::vector<std::pair<std::string, std::string>>;

Vocabulary numbered(const std::vector<std::string>& pieces) {
  Vocabulary out;
  for (const std::string& piece : pieces) out.emplace_back(piece, int32_t(out.size()));
  return out;
}

std::vector<std::string> texts(const Bpe& model, const std::string& word) {
  std::vector<Piece> pieces;
  model.tokenize(word, pieces);
  std::vector<std::string> out;
  for (const Piece& piece : pieces) out.push_back(*model.token(piece.id));
  return out;
}

/// The definition: again and again, the first pair of the lowest rank is joined.
std::vector<std::string> naive(const std::string& word, const Pairs& merges) {
  std::vector<std::string> parts;
  for (const char32_t c : unicode::decode(word)) parts.push_back(unicode::encode({&c, 1}));
  while (true) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank] == std::pair(parts[i], parts[i + 1])) best_rank = rank, best = i;
      }
    }
    if (best_rank == merges.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + std::ptrdiff_t(best) + 1);
  }
}

/// Random merges over a small alphabet, each of two pieces that exist.
void random_model(std::mt19937& random, std::vector<std::string>& pieces, Pairs& merges) {
  pieces = {"a", "b", "c", "\u2581", "é"};
  for (int i = 0; i < 60; ++i) {
    const std::string left = pieces[random() % pieces.size()],
                      right = pieces[random() % pieces.size()];
    const bool known = std::count(merges.begin(), merges.end(), std::pair(left, right)) > 0;
    if (known || left.size() + right.size() > 14) continue;
    merges.emplace_back(left, right);
    if (std::count(pieces.begin(), pieces.end(), left + right) == 0) pieces.push_back(left + right);
  }
}

TEST(Bpe, EqualsTheDefinitionOnRandomModelsAndWordsOfAllLengths) {
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::string> pieces;
    Pairs merges;
    random_model(random, pieces, merges);
    // Every other model never joins over U+2581, which lets long words be cut there.
    if (round % 2 == 0) {
      std::erase_if(merges, [](const std::pair<std::string, std::string>& merge) {
        return (merge.first + merge.second).find("\u2581", 1) != std::string::npos;
      });
    }
    const Bpe model({}, numbered(pieces), merges, "model");
    for (const size_t size : {1, 2, 3, 5, 8, 20, 47, 48, 49, 50, 64, 130, 300}) {
      std::string word;
      for (size_t i = 0; i < size; ++i) word += pieces[random() % 5];
      EXPECT_EQ(texts(model, word), naive(word, merges)) << word;
      EXPECT_EQ(texts(model, word), naive(word, merges)) << "from the cache: " << word;
    }
  }
}

TEST(Bpe, PiecesCoverTheWord) {
  const Bpe model({}, numbered({"a", "é", "aé"}), {{"a", "é"}}, "model");
  std::vector<Piece> pieces;
  model.tokenize("éaé", pieces);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].end, 2u);
  EXPECT_EQ(pieces[1].begin, 2u);
  EXPECT_EQ(pieces[1].end, 5u);
}

TEST(Bpe, BytesAndTheirCharactersGiveTheSamePieces) {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = char(byte);
    pieces.push_back(byte_level::encode({&raw, 1}));
  }
  const std::string accent = byte_level::encode("é"), blank = byte_level::encode(" ");
  const Pairs merges = {
      {accent.substr(0, 2), accent.substr(2)}, {blank, "a"}, {blank + "a", accent}};
  for (const auto& [left, right] : merges) pieces.push_back(left + right);
  const Bpe model({}, numbered(pieces), merges, "model");
  ASSERT_TRUE(model.covers_bytes());
  for (const std::string word : {" aé", "é", "\x01\n ", "aaé a中", " "}) {
    std::vector<Piece> by_bytes, by_chars;
    model.tokenize_bytes(word, by_bytes);
    model.tokenize(byte_level::encode(word), by_chars);
    ASSERT_EQ(by_bytes.size(), by_chars.size());
    for (size_t i = 0; i < by_bytes.size(); ++i) EXPECT_EQ(by_bytes[i].id, by_chars[i].id);
    EXPECT_EQ(by_bytes.back().end, word.size());
  }
}

TEST(Bpe, SuffixAndPrefixMarkTheEndAndTheInnerPieces) {
  const Bpe suffix({.suffix = "</w>"}, numbered({"a", "b", "b</w>", "ab</w>", "a</w>"}),
                   {{"a", "b</w>"}}, "model");
  EXPECT_EQ(texts(suffix, "ab"), (std::vector<std::string>{"ab</w>"}));
  EXPECT_EQ(texts(suffix, "aba"), (std::vector<std::string>{"a", "b", "a</w>"}));
  EXPECT_FALSE(suffix.covers_bytes());
  const Bpe prefix({.prefix = "##"}, numbered({"a", "##b", "ab", "##a"}), {{"a", "##b"}}, "model");
  EXPECT_EQ(texts(prefix, "aba"), (std::vector<std::string>{"ab", "##a"}));
}

TEST(Bpe, UnknownCharactersFuseFallBackOrVanish) {
  const Vocabulary plain = numbered({"a", "<unk>", "<0xC3>", "<0xA9>"});
  EXPECT_EQ(texts(Bpe({}, plain, {}, "model"), "xaé"), (std::vector<std::string>{"a"}));
  EXPECT_EQ(texts(Bpe({.unknown_token = "<unk>"}, plain, {}, "model"), "xxa"),
            (std::vector<std::string>{"<unk>", "<unk>", "a"}));
  EXPECT_EQ(
      texts(Bpe({.unknown_token = "<unk>", .fuse_unknown = true}, plain, {}, "model"), "xxax"),
      (std::vector<std::string>{"<unk>", "a", "<unk>"}));
  EXPECT_EQ(
      texts(Bpe({.unknown_token = "<unk>", .byte_fallback = true}, plain, {}, "model"), "aéx"),
      (std::vector<std::string>{"a", "<0xC3>", "<0xA9>", "<unk>"}));
}

TEST(Bpe, IgnoringMergesTakesAKnownWordWhole) {
  const Vocabulary vocabulary = numbered({"a", "b", "abab"});
  EXPECT_EQ(texts(Bpe({.ignore_merges = true}, vocabulary, {}, "model"), "abab"),
            (std::vector<std::string>{"abab"}));
  EXPECT_EQ(texts(Bpe({}, vocabulary, {}, "model"), "abab").size(), 4u);
}

TEST(BpeErrors, MergesNameMissingPieces) {
  const auto make = [](const Merges& merges) { Bpe({}, numbered({"a", "b"}), merges, "f: model"); };
  EXPECT_EQ(
      error_text(
          [&] {
            make({{"a", "c"}});
          },
          ErrorCode::Corrupt),
      "f: model.merges[0]: joining \"a\" and \"c\" needs the piece \"c\", which is not in the "
      "vocabulary of 2 pieces");
  EXPECT_EQ(
      error_text(
          [&] {
            make({{"a", "b"}});
          },
          ErrorCode::Corrupt),
      "f: model.merges[0]: joining \"a\" and \"b\" needs the piece \"ab\", which is not in the "
      "vocabulary of 2 pieces");
}

TEST(BpeErrors, AMissingUnknownTokenIsToldWhenNeeded) {
  const Bpe model({.unknown_token = "<unk>"}, numbered({"a"}), {}, "model");
  EXPECT_EQ(texts(model, "aa").size(), 2u);
  EXPECT_EQ(error_text([&] { texts(model, "ab"); }, ErrorCode::BadInput),
            "tokenizing \"b\": it is not in the vocabulary, and neither is the unknown token "
            "\"<unk>\"; correct unk_token in the tokenizer's file");
}

json bpe_json() {
  return {{"model",
           {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", {"a b"}}}}};
}

TEST(BpeErrors, DamagedFilesAreExplained) {
  json value = bpe_json();
  value["model"]["merges"] = {"a b c"};
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.merges[0]: found \"a b c\"; expected \"a b\" or [\"a\", \"b\"]");
  value["model"]["merges"] = json::array({"a b", json::array({"a"})});
  EXPECT_EQ(
      load_error(value, ErrorCode::Corrupt),
      "tokenizer.json: model.merges[1]: found a list of 1; expected \"a b\" or [\"a\", \"b\"]");
  value["model"]["merges"] = json::array({json::array({"a", 5})});
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.merges[0]: found 5; expected \"a b\" or [\"a\", \"b\"]");
  value["model"]["merges"] = json::array({json::object()});
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.merges[0]: found an object; expected \"a b\" or [\"a\", \"b\"]");
  value["model"].erase("merges");
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model: key \"merges\" is missing");
  value = bpe_json();
  value["model"]["vocab"] = json::array({json::array({"a", 0.5})});
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.vocab: expected an object, found []");
  value = bpe_json();
  value["model"]["dropout"] = 0.1;
  EXPECT_EQ(load_error(value, ErrorCode::Unsupported),
            "tokenizer.json: model.dropout: leaving out merges at random is not supported; found "
            "0.1, expected null");
  value["model"]["dropout"] = 0.0;
  EXPECT_EQ(load_json(value).encode("ab").ids, (std::vector<int32_t>{2}));
}

TEST(BpeErrors, DeeplyNestedFilesAreCorrupt) {
  const TestFolder folder;
  folder.write("tokenizer.json", "{\"model\":" + std::string(5000, '['));
  EXPECT_EQ(error_text([&] { folder.load(); }, ErrorCode::Corrupt, folder.path()),
            "tokenizer.json: values are nested more than 100 deep; expected a tokenizer's file");
}

}  // namespace bpe_test
}  // namespace attune
