#pragma once
#include <string_view>
#include <vector>

#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace attune {

/// The stages of byte-level BPE straight on UTF-8: words are cut by patterns, and their bytes go to
/// the model without becoming characters in between. Same words and pieces as the stages
/// themselves.
class ByteWords {
 public:
  /// Null when the stages do something else. All must outlive the result.
  static std::unique_ptr<ByteWords> make(const Normalizer* normalizer,
                                         const PreTokenizer* pre_tokenizer, const Model& model);

  /// Calls emit(word, pieces) for every word of valid UTF-8 text; word: bytes [begin, end) of
  /// `text`. False, without a call, when the normalizer might change the text.
  template <class Emit>
  bool run(std::string_view text, Emit emit) const;

 private:
  ByteWords(const Normalizer* normalizer, const Bpe& model)
      : normalizer_(normalizer), model_(model) {}
  /// Cuts every range at the matches of every pattern.
  std::vector<PreTokenizer::Range> words(std::string_view text) const;

  const Normalizer* normalizer_;
  const Bpe& model_;
  std::vector<const Pattern*> patterns_;
};

template <class Emit>
bool ByteWords::run(std::string_view text, Emit emit) const {
  if (normalizer_ != nullptr && !normalizer_->keeps(text)) return false;
  std::vector<Piece> pieces;
  for (const PreTokenizer::Range& word : words(text)) {
    pieces.clear();
    model_.tokenize_bytes(text.substr(size_t(word.first), size_t(word.second - word.first)),
                          pieces);
    emit(word, pieces);
  }
  return true;
}

}  // namespace attune
