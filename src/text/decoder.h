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
  virtual std::string decode(std::vector<std::string> tokens) const = 0;
};

/// Builds what the "decoder" field describes; for null, tokens are joined with blanks. Throws
/// Unsupported, naming an unknown type, its field and file.
std::unique_ptr<Decoder> make_decoder(const JsonView& json);
/// Pieces with the prefix are glued to the one before; `cleanup` undoes blanks before punctuation
/// and English contractions.
std::unique_ptr<Decoder> make_word_piece_decoder(std::string prefix, bool cleanup);

}  // namespace attune
