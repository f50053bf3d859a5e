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

/// Third stage of a tokenizer: cuts one word (UTF-8, not empty) into pieces of the vocabulary.
class Model {
 public:
  virtual ~Model() = default;
  /// Appends the pieces of `word`.
  virtual void tokenize(std::string_view word, std::vector<Piece>& out) const = 0;
  virtual std::optional<int32_t> id(std::string_view piece) const = 0;
  /// Null when no piece has this id.
  virtual const std::string* token(int32_t id) const = 0;
  /// Largest id + 1.
  virtual int64_t id_bound() const = 0;
  /// The token for unknown words; empty when there is none.
  virtual const std::string& unknown_token() const = 0;
};

/// Builds what the "model" field describes; its vocabulary was read beforehand (load_json.h).
/// Throws Unsupported, naming an unknown type, its field and file; Corrupt for a malformed one.
std::unique_ptr<Model> make_model(const JsonView& json, Vocabulary vocabulary);

struct WordPieceOptions {
  std::string unknown_token = "[UNK]", prefix = "##";
  int64_t max_word_chars = 100;
};
/// Greedy longest match from the left; a word that cannot be covered, or has more than
/// max_word_chars characters, becomes one unknown token. `where` leads the errors: Corrupt when the
/// unknown token is not in the vocabulary, two pieces share an id, a piece comes twice or an id is
/// negative or absurdly large. Reference: Schuster and Nakajima 2012, "Japanese and Korean voice
/// search"; Devlin et al. 2018, BERT.
std::unique_ptr<Model> make_word_piece(const WordPieceOptions& options, Vocabulary vocabulary,
                                       const std::string& where);

}  // namespace attune
