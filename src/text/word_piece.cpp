#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/model.h"
#include "text/piece_table.h"

namespace attune {
namespace {

class WordPiece : public Model {
 public:
  WordPiece(const WordPieceOptions& options, Vocabulary vocabulary, const std::string& where);
  void tokenize(std::string_view word, std::vector<Piece>& out) const override;
  std::optional<int32_t> id(std::string_view piece) const override {
    const int32_t found = pieces_.find(piece);
    return found < 0 ? std::nullopt : std::optional<int32_t>(found);
  }
  const std::string* token(int32_t id) const override {
    if (id < 0 || id >= id_bound() || !used_[size_t(id)]) return nullptr;
    return &tokens_[size_t(id)];
  }
  int64_t id_bound() const override { return int64_t(tokens_.size()); }
  const std::string& unknown_token() const override { return options_.unknown_token; }

 private:
  bool too_long(std::string_view word) const {
    if (int64_t(word.size()) <= options_.max_word_chars) return false;
    return std::count_if(word.begin(), word.end(), [](char c) { return (c & 0xC0) != 0x80; }) >
           options_.max_word_chars;
  }
  /// Longest piece that starts at `begin`; false when there is none.
  bool longest(std::string_view word, size_t begin, Piece& out) const;

  WordPieceOptions options_;
  PieceTable pieces_;         // whole vocabulary
  PieceTable continuations_;  // pieces with the prefix, without it
  std::vector<std::string> tokens_;
  std::vector<bool> used_;
  int32_t unknown_ = 0;
};

constexpr size_t kHashes = 256;  // prefixes hashed ahead

WordPiece::WordPiece(const WordPieceOptions& options, Vocabulary vocabulary,
                     const std::string& where)
    : options_(options), pieces_(vocabulary.size()), continuations_(vocabulary.size() / 4) {
  const int64_t limit = int64_t(vocabulary.size()) * 10 + 1'000'000;
  for (std::pair<std::string, int32_t>& entry : vocabulary) {
    auto& [piece, id] = entry;
    if (id < 0 || id >= limit) {
      fail(ErrorCode::Corrupt, "{}: piece \"{}\" has id {}; expected 0 to {}", where, piece, id,
           limit - 1);
    }
    if (size_t(id) >= tokens_.size()) {
      tokens_.resize(size_t(id) + 1);
      used_.resize(size_t(id) + 1);
    }
    if (used_[size_t(id)]) {
      fail(ErrorCode::Corrupt, "{}: \"{}\" and \"{}\" share id {}; ids must differ", where,
           tokens_[size_t(id)], piece, id);
    }
    if (!pieces_.add(piece, id)) {
      fail(ErrorCode::Corrupt, "{}: piece \"{}\" is listed twice", where, piece);
    }
    const std::string_view prefix = options_.prefix;
    if (piece.size() > prefix.size() && std::string_view(piece).starts_with(prefix)) {
      continuations_.add(std::string_view(piece).substr(prefix.size()), id);
    }
    used_[size_t(id)] = true;
    tokens_[size_t(id)] = std::move(piece);
  }
  unknown_ = pieces_.find(options_.unknown_token);
  if (unknown_ < 0) {
    fail(ErrorCode::Corrupt,
         "{}: the unknown token \"{}\" is not in the vocabulary of {} pieces; correct unk_token",
         where, options_.unknown_token, vocabulary.size());
  }
}

bool WordPiece::longest(std::string_view word, size_t begin, Piece& out) const {
  const PieceTable& table = begin == 0 ? pieces_ : continuations_;
  const size_t limit = std::min(word.size() - begin, table.longest());
  std::array<uint32_t, kHashes + 1> hashes;
  const size_t hashed = std::min(limit, kHashes);
  hashes[0] = PieceTable::kSeed;
  for (size_t i = 0; i < hashed; ++i) hashes[i + 1] = PieceTable::step(hashes[i], word[begin + i]);
  for (size_t size = limit; size > 0; --size) {
    const std::string_view piece = word.substr(begin, size);
    const uint32_t hash = size <= hashed ? hashes[size] : PieceTable::hash(piece);
    const int32_t id = table.find(piece, hash);
    if (id < 0) continue;
    out = {id, uint32_t(begin), uint32_t(begin + size)};
    return true;
  }
  return false;
}

void WordPiece::tokenize(std::string_view word, std::vector<Piece>& out) const {
  const size_t before = out.size();
  bool known = !too_long(word);
  Piece piece{};
  for (size_t at = 0; known && at < word.size(); at = piece.end) {
    known = longest(word, at, piece);
    if (known) out.push_back(piece);
  }
  if (known) return;
  out.resize(before);
  out.push_back({unknown_, 0, uint32_t(word.size())});
}

}  // namespace

std::unique_ptr<Model> make_word_piece(const WordPieceOptions& options, Vocabulary vocabulary,
                                       const std::string& where) {
  return std::make_unique<WordPiece>(options, std::move(vocabulary), where);
}

}  // namespace attune
