#include <cmath>
#include <map>
#include <random>

#include "text/load_json.h"
#include "text/model.h"
#include "text/piece_trie.h"
#include "unit/text/folder.h"

namespace attune {
namespace unigram_test {

using nlohmann::json;
using Ids = std::vector<int32_t>;

ModelTables tables(const std::vector<std::pair<std::string, double>>& pieces) {
  ModelTables out;
  for (const auto& [piece, score] : pieces) {
    out.vocabulary.emplace_back(piece, int32_t(out.vocabulary.size()));
    out.scores.push_back(score);
  }
  return out;
}

Ids ids(const Model& model, const std::string& word) {
  std::vector<Piece> pieces;
  model.tokenize(word, pieces);
  Ids out;
  for (const Piece& piece : pieces) out.push_back(piece.id);
  return out;
}

/// The best score over all ways to cut `word` into pieces, by trying them all.
double best_score(const std::map<std::string, double>& pieces, const std::string& word) {
  if (word.empty()) return 0;
  double best = -1e300;
  for (size_t size = 1; size <= word.size(); ++size) {
    const std::map<std::string, double>::const_iterator found = pieces.find(word.substr(0, size));
    if (found == pieces.end()) continue;
    best = std::max(best, found->second + best_score(pieces, word.substr(size)));
  }
  return best;
}

TEST(Unigram, FindsTheBestOfAllSegmentations) {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    std::map<std::string, double> pieces = {{"a", -5}, {"b", -6}, {"c", -7}};
    while (pieces.size() < 25) {
      std::string piece;
      for (size_t size = 2 + random() % 4; piece.size() < size;) piece += char('a' + random() % 3);
      pieces[piece] = -1 - double(random() % 1000) / 70;
    }
    std::vector<std::pair<std::string, double>> list = {{"<unk>", 0}};
    list.insert(list.end(), pieces.begin(), pieces.end());
    const std::unique_ptr<Model> model = make_unigram(tables(list), 0, false, "model");
    for (const size_t size : {1, 2, 5, 9, 13}) {
      std::string word;
      for (size_t i = 0; i < size; ++i) word += char('a' + random() % 3);
      double score = 0;
      std::string joined;
      for (const int32_t id : ids(*model, word)) {
        joined += list[size_t(id)].first;
        score += list[size_t(id)].second;
      }
      EXPECT_EQ(joined, word);
      EXPECT_NEAR(score, best_score(pieces, word), 1e-9) << word;
    }
  }
}

TEST(Unigram, LongWordsAndCachedOnesAgree) {
  const std::unique_ptr<Model> model =
      make_unigram(tables({{"<unk>", 0}, {"a", -2}, {"aa", -3}, {"b", -1}}), 0, false, "model");
  const std::string word = "aabaaabxx";
  std::string longer;
  for (int i = 0; i < 20; ++i) longer += word;
  Ids expected;
  for (int i = 0; i < 20; ++i) {
    const Ids once = ids(*model, word);
    expected.insert(expected.end(), once.begin(), once.end());
  }
  EXPECT_EQ(ids(*model, longer), expected);
  EXPECT_EQ(ids(*model, word), ids(*model, word));
}

TEST(Unigram, NeighboursThatAreUnknownBecomeOneToken) {
  const std::unique_ptr<Model> model =
      make_unigram(tables({{"a", -1}, {"<unk>", 0}, {"b", -2}}), 1, false, "model");
  std::vector<Piece> pieces;
  model->tokenize("aéxb", pieces);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[1].id, 1);
  EXPECT_EQ(pieces[1].begin, 1u);
  EXPECT_EQ(pieces[1].end, 4u);
  EXPECT_TRUE(model->stands_for_text(1));
  EXPECT_FALSE(model->stands_for_text(0));
}

TEST(Unigram, ByteFallbackNeedsEveryByte) {
  const std::vector<std::pair<std::string, double>> pieces = {
      {"<unk>", 0}, {"a", -1}, {"<0xC3>", -9}, {"<0xA9>", -9}};
  const std::unique_ptr<Model> model = make_unigram(tables(pieces), 0, true, "model");
  EXPECT_EQ(ids(*model, "aé"), (Ids{1, 2, 3}));
  EXPECT_EQ(ids(*model, "éx"), (Ids{0}));
  EXPECT_EQ(ids(*make_unigram(tables(pieces), 0, false, "model"), "aé"), (Ids{1, 0}));
}

TEST(Unigram, OfEqualPiecesTheLastCounts) {
  const std::unique_ptr<Model> model =
      make_unigram(tables({{"<unk>", 0}, {"a", -1}, {"a", -2}}), 0, false, "model");
  EXPECT_EQ(ids(*model, "a"), (Ids{2}));
  EXPECT_EQ(model->id("a"), 2);
  EXPECT_EQ(*model->token(1), "a");
}

TEST(Unigram, ScoresAreReadAsTheReferenceReadsThem) {
  // Digits as an integer, then one division: the last of these is not the nearest double.
  EXPECT_EQ(json_score("0"), 0.0);
  EXPECT_EQ(json_score("-3"), -3.0);
  EXPECT_EQ(json_score("-0.5e1"), -5.0);
  EXPECT_EQ(json_score("2.5E-3"), 0.0025);
  EXPECT_EQ(json_score("12345678901234567890123"), 12345678901234567890.0 * 1e3);
  EXPECT_EQ(json_score("1e400"), std::numeric_limits<double>::infinity());
  EXPECT_EQ(json_score("1e-400"), 0.0);
  EXPECT_EQ(json_score("-15.774467468261719"), -(15774467468261719.0 / 1e15));
  EXPECT_NE(json_score("-15.774467468261719"), -15.774467468261719);
}

TEST(PieceTrie, FindsExactlyItsPieces) {
  std::mt19937 random(5);
  std::map<std::string, int32_t> expected;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (size_t size = 1 + random() % 5; text.size() < size;) text += char(random() % 256);
    expected[text] = i;
  }
  const PieceTrie trie({expected.begin(), expected.end()});
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (size_t size = 1 + random() % 5; text.size() < size;) text += char(random() % 256);
    uint32_t node = PieceTrie::kRoot;
    for (const char byte : text) {
      if (node != PieceTrie::kNone) node = trie.child(node, uint8_t(byte));
    }
    const int32_t found = node == PieceTrie::kNone ? -1 : trie.id(node);
    EXPECT_EQ(found, expected.contains(text) ? expected[text] : -1);
  }
  EXPECT_EQ(PieceTrie().child(PieceTrie::kRoot, 'a'), PieceTrie::kNone);
}

json unigram_json() {
  return {{"model",
           {{"type", "Unigram"},
            {"unk_id", 0},
            {"vocab", json::array({json::array({"<unk>", 0}), json::array({"a", -1.5})})}}}};
}

TEST(UnigramErrors, DamagedFilesAreExplained) {
  json value = unigram_json();
  EXPECT_EQ(load_json(value).encode("ax").ids, (Ids{1, 0}));
  value["model"]["vocab"][1] = json::array({"a"});
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.vocab[1]: found a list of 1; expected [piece, score]");
  value["model"]["vocab"][1] = "a";
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.vocab[1]: found \"a\"; expected [piece, score]");
  value["model"]["vocab"][1] = json::array({"a", "b"});
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.vocab[1]: found \"b\"; expected [piece, score]");
  value = unigram_json();
  value["model"]["unk_id"] = 2;
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.unk_id: found 2; expected the number of one of the 2 pieces");
  value["model"]["vocab"] = {{"a", 0}};
  EXPECT_EQ(load_error(value, ErrorCode::Corrupt),
            "tokenizer.json: model.vocab: expected a list, found {}");
}

TEST(UnigramErrors, AMissingUnknownTokenIsToldWhenNeeded) {
  json value = unigram_json();
  value["model"].erase("unk_id");
  const Tokenizer tokenizer = load_json(value);
  EXPECT_EQ(tokenizer.encode("aa").ids.size(), 2u);
  EXPECT_EQ(
      error_text([&] { tokenizer.encode("ab"); }, ErrorCode::BadInput),
      "tokenizing \"b\": it is not in the vocabulary, which has no unknown token; give unk_id "
      "in the tokenizer's file");
}

}  // namespace unigram_test
}  // namespace attune
