#pragma once
#include <memory>
#include <string>
#include <vector>

#include "text/json_view.h"

namespace attune {

/// Turns tokens back into text.
class Decoder {
 public:
  virtual ~Decoder() = default;
  /// Rewrites the tokens, which need not stay as many; joined, they are the text.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
  std::string decode(std::vector<std::string> tokens) const;
  /// True when the text of a run of tokens like "<0x0A>" depends on the whole run.
  virtual bool joins_bytes() const { return false; }
};

/// Builds what the "decoder" field describes; for null, tokens are joined with blanks. Throws
/// Unsupported, naming an unknown type, its field and file.
std::unique_ptr<Decoder> make_decoder(const JsonView& json);
/// Pieces with the prefix are glued to the one before; `cleanup` undoes blanks before punctuation
/// and English contractions.
std::unique_ptr<Decoder> make_word_piece_decoder(std::string prefix, bool cleanup);

/// What transformers' clean_up_tokenization does to a decoded text: blanks before punctuation and
/// within English contractions go.
void clean_up_spaces(std::string& text);

/// The byte of a token like "<0x0A>"; -1 for other tokens.
int byte_of_token(std::string_view token);

}  // namespace attune
