#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/model.h"
#include "text/vocabulary_table.h"

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
  const std::string* token(int32_t id) const override { return pieces_.token(id); }
  int64_t id_bound() const override { return pieces_.bound(); }
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
  PieceTable continuations_;  // pieces with the prefix, without it
  VocabularyTable pieces_;
  int32_t unknown_ = 0;
};

constexpr size_t kHashes = 256;  // prefixes hashed ahead

/// Before the pieces move into their table.
PieceTable continuations(const Vocabulary& vocabulary, std::string_view prefix) {
  PieceTable out(vocabulary.size() / 4);
  for (const auto& [piece, id] : vocabulary) {
    if (id >= 0 && piece.size() > prefix.size() && piece.starts_with(prefix)) {
      out.add(std::string_view(piece).substr(prefix.size()), id);
    }
  }
  return out;
}

WordPiece::WordPiece(const WordPieceOptions& options, Vocabulary vocabulary,
                     const std::string& where)
    : options_(options),
      continuations_(continuations(vocabulary, options.prefix)),
      pieces_(std::move(vocabulary), where) {
  unknown_ = pieces_.find(options_.unknown_token);
  if (unknown_ < 0) {
    fail(ErrorCode::Corrupt,
         "{}: the unknown token \"{}\" is not in the vocabulary of {} pieces; correct unk_token",
         where, options_.unknown_token, pieces_.size());
  }
}

bool WordPiece::longest(std::string_view word, size_t begin, Piece& out) const {
  const PieceTable& table = begin == 0 ? pieces_.ids() : continuations_;
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
