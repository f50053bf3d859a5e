#include "text/model.h"

#include "base/error.h"

namespace attune {

std::unique_ptr<Model> make_model(const JsonView& json, Vocabulary vocabulary) {
  // Files of old versions leave the type out; a WordPiece model is told by its prefix.
  const std::string type = !json.has("type") && json.has("continuing_subword_prefix")
                               ? "WordPiece"
                               : json.at("type").as_string();
  if (type != "WordPiece") {
    fail(ErrorCode::Unsupported,
         "{}.type: model type \"{}\" is not supported; supported: WordPiece", json.where(), type);
  }
  json.at("vocab");  // reports a missing one
  WordPieceOptions options;
  options.unknown_token = json.text("unk_token", options.unknown_token);
  options.prefix = json.text("continuing_subword_prefix", options.prefix);
  if (json.has("max_input_chars_per_word")) {
    options.max_word_chars = json.at("max_input_chars_per_word").as_int();
  }
  return make_word_piece(options, std::move(vocabulary), json.where() + ".vocab");
}

}  // namespace attune
