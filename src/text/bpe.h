#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "text/merge_table.h"
#include "text/model.h"
#include "text/vocabulary_table.h"
#include "text/word_cache.h"

namespace attune {

struct BpeOptions {
  std::string unknown_token{};     // empty: unknown characters vanish
  std::string prefix{}, suffix{};  // of pieces that continue a word, and of the last one
  bool fuse_unknown = false;       // neighbouring unknown characters become one token
  bool byte_fallback = false;      // an unknown character becomes "<0x..>" tokens where all exist
  bool ignore_merges = false;      // a word of the vocabulary is taken whole
};

/// Byte-pair encoding: a word starts as its characters, and the neighbours with the lowest rank are
/// joined (the leftmost first) until none is left. Words seen before come from a cache;
/// thread-safe. Reference: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with
/// Subword Units", arXiv 1508.07909.
class Bpe : public Model {
 public:
  /// `where` is the model's place, which leads the errors: Corrupt when a merge names a piece that
  /// is not in the vocabulary, and those of VocabularyTable.
  Bpe(BpeOptions options, Vocabulary vocabulary, const Merges& merges, const std::string& where);

  void tokenize(std::string_view word, std::vector<Piece>& out) const override;
  /// The same for bytes that stand for the characters of byte_level.h; pieces count bytes. Only
  /// when covers_bytes().
  void tokenize_bytes(std::string_view word, std::vector<Piece>& out) const;
  /// True when every byte has its piece, wherever it stands in a word.
  bool covers_bytes() const { return covers_bytes_; }

  std::optional<int32_t> id(std::string_view piece) const override {
    const int32_t found = pieces_.find(piece);
    return found < 0 ? std::nullopt : std::optional<int32_t>(found);
  }
  const std::string* token(int32_t id) const override { return pieces_.token(id); }
  int64_t id_bound() const override { return pieces_.bound(); }
  bool is_bpe() const override { return true; }
  const std::string& unknown_token() const override { return options_.unknown_token; }

 private:
  struct Symbols;
  /// Symbols of characters that are {only, first, middle, last} in their word.
  using ByteIds = std::array<std::array<int32_t, 256>, 4>;

  int32_t symbol(std::string_view c, bool first, bool last) const;
  void split(std::string_view word, Symbols& out) const;
  void append_unknown(std::string_view c, Symbols& out, uint32_t& pending) const;
  void split_bytes(std::string_view word, Symbols& out) const;
  void merge(Symbols& symbols, std::vector<Piece>& out) const;
  void merge_long(Symbols& symbols) const;
  void tokenize_part(std::string_view part, std::vector<Piece>& out) const;
  void read_merges(const Merges& merges, const std::string& where);
  void prepare_symbols();

  BpeOptions options_;
  VocabularyTable pieces_;
  MergeTable rules_;
  int32_t unknown_ = -1;
  bool plain_;          // no prefix and no suffix
  bool cuts_at_blank_;  // no merge reaches from another character over U+2581
  bool covers_bytes_ = false;
  std::array<int32_t, 128> ascii_ids_;     // when plain_
  std::array<int32_t, 256> fallback_ids_;  // "<0x..>"
  std::unique_ptr<ByteIds> byte_ids_;
  mutable WordCache words_, byte_words_;
};

}  // namespace attune
