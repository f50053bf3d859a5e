#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "text/model.h"
#include "text/piece_trie.h"
#include "text/word_cache.h"

namespace attune {
namespace {

constexpr double kUnknownPenalty = 10;

class Unigram : public Model {
 public:
  Unigram(ModelTables tables, std::optional<int32_t> unknown, bool byte_fallback,
          const std::string& where);
  void tokenize(std::string_view word, std::vector<Piece>& out) const override;
  std::optional<int32_t> id(std::string_view piece) const override {
    const int32_t found = find_piece(piece);
    return found < 0 ? std::nullopt : std::optional<int32_t>(found);
  }
  const std::string* token(int32_t id) const override {
    return id >= 0 && id < id_bound() ? &tokens_[size_t(id)] : nullptr;
  }
  int64_t id_bound() const override { return int64_t(tokens_.size()); }
  const std::string& unknown_token() const override {
    return unknown_ < 0 ? none_ : tokens_[size_t(unknown_)];
  }
  bool stands_for_text(int32_t id) const override { return id == unknown_; }

 private:
  /// The best way to the end of a prefix of the word.
  struct Node {
    double score = 0;
    uint32_t begin = 0;
    int32_t id = kUnreached;
  };
  static constexpr int32_t kUnreached = -2;

  int32_t find_piece(std::string_view piece) const;
  void search(std::string_view word, std::vector<Node>& best) const;
  void append_unknown(std::string_view word, Piece piece, std::vector<Piece>& out) const;

  std::vector<std::string> tokens_;
  std::vector<double> scores_;
  PieceTrie trie_;
  std::string none_;
  int32_t unknown_;
  int32_t empty_ = -1;  // the id of the empty piece
  bool byte_fallback_;
  double unknown_score_;
  std::array<int32_t, 256> fallback_ids_;
  mutable WordCache words_;
};

Unigram::Unigram(ModelTables tables, std::optional<int32_t> unknown, bool byte_fallback,
                 const std::string& where)
    : scores_(std::move(tables.scores)),
      unknown_(unknown.value_or(-1)),
      byte_fallback_(byte_fallback) {
  if (unknown && (unknown_ < 0 || size_t(unknown_) >= scores_.size())) {
    fail(ErrorCode::Corrupt, "{}.unk_id: found {}; expected the number of one of the {} pieces",
         where, unknown_, scores_.size());
  }
  std::vector<std::pair<std::string_view, int32_t>> pieces;
  for (const auto& [piece, id] : tables.vocabulary) {
    pieces.emplace_back(piece, id);
    if (piece.empty()) empty_ = id;
  }
  trie_ = PieceTrie(std::move(pieces));
  double lowest = std::numeric_limits<double>::infinity();
  for (const double score : scores_) lowest = score < lowest ? score : lowest;
  unknown_score_ = lowest - kUnknownPenalty;
  for (std::pair<std::string, int32_t>& entry : tables.vocabulary) {
    tokens_.push_back(std::move(entry.first));
  }
  for (int byte = 0; byte < 256; ++byte) {
    fallback_ids_[size_t(byte)] = find_piece(fmt::format("<0x{:02X}>", byte));
  }
}

int32_t Unigram::find_piece(std::string_view piece) const {
  if (piece.empty()) return empty_;
  uint32_t node = PieceTrie::kRoot;
  for (const char byte : piece) {
    node = trie_.child(node, uint8_t(byte));
    if (node == PieceTrie::kNone) return -1;
  }
  return trie_.id(node);
}

void Unigram::search(std::string_view word, std::vector<Node>& best) const {
  best.assign(word.size() + 1, {});
  const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
    Node& node = best[end];
    if (node.id == kUnreached || score > node.score) node = {score, uint32_t(begin), id};
  };
  size_t next = 0;
  for (size_t begin = 0; begin < word.size(); begin = next) {
    next = begin + 1;
    while (next < word.size() && (word[next] & 0xC0) == 0x80) ++next;
    const double so_far = best[begin].score;
    bool single = false;
    uint32_t node = PieceTrie::kRoot;
    for (size_t at = begin; at < word.size();) {
      node = trie_.child(node, uint8_t(word[at++]));
      if (node == PieceTrie::kNone) break;
      const int32_t id = trie_.id(node);
      if (id < 0) continue;
      offer(begin, at, scores_[size_t(id)] + so_far, id);
      single = single || at == next;
    }
    if (single) continue;
    if (unknown_ < 0) {
      fail(
          ErrorCode::BadInput,
          "tokenizing \"{}\": it is not in the vocabulary, which has no unknown token; give unk_id "
          "in the tokenizer's file",
          word.substr(begin, next - begin));
    }
    offer(begin, next, unknown_score_ + so_far, unknown_);
  }
}

void Unigram::append_unknown(std::string_view word, Piece piece, std::vector<Piece>& out) const {
  const std::string_view text = word.substr(piece.begin, piece.end - piece.begin);
  const int32_t known = find_piece(text);
  if (known >= 0) return out.push_back({known, piece.begin, piece.end});
  if (!byte_fallback_ || !std::all_of(text.begin(), text.end(), [&](char byte) {
        return fallback_ids_[uint8_t(byte)] >= 0;
      })) {
    return out.push_back(piece);
  }
  for (const char byte : text) {
    out.push_back({fallback_ids_[uint8_t(byte)], piece.begin, piece.end});
  }
}

void Unigram::tokenize(std::string_view word, std::vector<Piece>& out) const {
  const bool cached = word.size() <= WordCache::kLongestWord;
  const uint64_t hash = cached ? WordCache::hash(word) : 0;
  if (cached && words_.find(word, hash, 0, out)) return;
  std::vector<Node> best;
  search(word, best);
  std::vector<Piece> path;  // last piece first, neighbours that are unknown joined
  for (uint32_t end = uint32_t(word.size()); end > 0; end = best[end].begin) {
    const Node& node = best[end];
    if (node.id == unknown_ && !path.empty() && path.back().id == unknown_) {
      path.back().begin = node.begin;
    } else {
      path.push_back({node.id, node.begin, end});
    }
  }
  const size_t before = out.size();
  for (size_t i = path.size(); i-- > 0;) {
    if (path[i].id == unknown_) {
      append_unknown(word, path[i], out);
    } else {
      out.push_back(path[i]);
    }
  }
  if (cached) words_.add(word, hash, out.data() + before, out.size() - before);
}

}  // namespace

std::unique_ptr<Model> make_unigram(ModelTables tables, std::optional<int32_t> unknown,
                                    bool byte_fallback, const std::string& where) {
  return std::make_unique<Unigram>(std::move(tables), unknown, byte_fallback, where);
}

}  // namespace attune
