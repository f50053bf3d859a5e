#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/json_view.h"

namespace attune {

/// A piece of one word: its id and its bytes [begin, end) of the word.
struct Piece {
  int32_t id;
  uint32_t begin, end;
};

/// Pieces of a vocabulary with their ids, in the order of the file.
using Vocabulary = std::vector<std::pair<std::string, int32_t>>;
/// Pairs of pieces that BPE joins, the first ones first.
using Merges = std::vector<std::pair<std::string, std::string>>;

/// The large parts of a model, taken from its file ahead of everything else.
struct ModelTables {
  Vocabulary vocabulary;
  std::vector<double> scores;  // one for each piece when the file lists [piece, score], else empty
  Merges merges;
};

/// Third stage of a tokenizer: cuts one word (UTF-8, not empty) into pieces of the vocabulary.
class Model {
 public:
  virtual ~Model() = default;
  /// Appends the pieces of `word`. Throws BadInput when the word needs an unknown token and the
  /// model has none.
  virtual void tokenize(std::string_view word, std::vector<Piece>& out) const = 0;
  virtual std::optional<int32_t> id(std::string_view piece) const = 0;
  /// Null when no piece has this id.
  virtual const std::string* token(int32_t id) const = 0;
  /// Largest id + 1.
  virtual int64_t id_bound() const = 0;
  /// The token for unknown words; empty when there is none.
  virtual const std::string& unknown_token() const = 0;
  /// True when a token of this id stands for its own text, whatever its piece is.
  virtual bool stands_for_text(int32_t) const { return false; }
  virtual bool is_bpe() const { return false; }
};

/// Builds what the "model" field describes; its tables were read beforehand (load_json.h). Throws
/// Unsupported, naming an unknown type or option, its field and file; Corrupt for a malformed one.
std::unique_ptr<Model> make_model(const JsonView& json, ModelTables tables);

struct WordPieceOptions {
  std::string unknown_token = "[UNK]", prefix = "##";
  int64_t max_word_chars = 100;
};
/// Greedy longest match from the left; a word that cannot be covered, or has more than
/// max_word_chars characters, becomes one unknown token. `where` leads the errors: Corrupt when the
/// unknown token is not in the vocabulary, and those of VocabularyTable. Reference: Schuster and
/// Nakajima 2012, "Japanese and Korean voice search"; Devlin et al. 2018, BERT.
std::unique_ptr<Model> make_word_piece(const WordPieceOptions& options, Vocabulary vocabulary,
                                       const std::string& where);

/// A word as a whole, or the unknown token, which the vocabulary need not have. `where` leads the
/// errors of VocabularyTable.
std::unique_ptr<Model> make_word_level(const std::string& unknown, Vocabulary vocabulary,
                                       const std::string& where);

/// The most probable segmentation under a unigram language model of pieces (Viterbi over a trie, in
/// double). A character that no piece covers costs 10 below the lowest score; neighbours of that
/// kind become one unknown token, or with byte_fallback the "<0x..>" tokens of their bytes. Pieces
/// are numbered in their order; of equal ones the last counts. `where` leads the errors: Corrupt
/// for an unknown id outside the vocabulary. Reference: Kudo 2018, "Subword Regularization",
/// arXiv 1804.10959.
std::unique_ptr<Model> make_unigram(ModelTables tables, std::optional<int32_t> unknown,
                                    bool byte_fallback, const std::string& where);

}  // namespace attune
