#include "text/model.h"

#include "base/error.h"
#include "text/bpe.h"

namespace attune {
namespace {

std::unique_ptr<Model> word_piece_from(const JsonView& json, ModelTables tables) {
  WordPieceOptions options;
  options.unknown_token = json.text("unk_token", options.unknown_token);
  options.prefix = json.text("continuing_subword_prefix", options.prefix);
  if (json.has("max_input_chars_per_word")) {
    options.max_word_chars = json.at("max_input_chars_per_word").as_int();
  }
  return make_word_piece(options, std::move(tables.vocabulary), json.where() + ".vocab");
}

std::unique_ptr<Model> bpe_from(const JsonView& json, ModelTables tables) {
  json.at("merges").items();  // reports a missing one
  if (json.has("dropout")) {
    const JsonView dropout = json.at("dropout");
    if (!dropout.value().is_number() || dropout.value().get<double>() != 0) {
      fail(ErrorCode::Unsupported,
           "{}: leaving out merges at random is not supported; found {}, expected null",
           dropout.where(), dropout.value().dump());
    }
  }
  BpeOptions options;
  options.unknown_token = json.text("unk_token", "");
  options.prefix = json.text("continuing_subword_prefix", "");
  options.suffix = json.text("end_of_word_suffix", "");
  options.fuse_unknown = json.flag("fuse_unk", false);
  options.byte_fallback = json.flag("byte_fallback", false);
  options.ignore_merges = json.flag("ignore_merges", false);
  return std::make_unique<Bpe>(std::move(options), std::move(tables.vocabulary), tables.merges,
                               json.where());
}

std::unique_ptr<Model> unigram_from(const JsonView& json, ModelTables tables) {
  std::optional<int32_t> unknown;
  if (json.has("unk_id")) {
    const int64_t id = json.at("unk_id").as_int();
    unknown = id < 0 || id > INT32_MAX ? -1 : int32_t(id);
  }
  return make_unigram(std::move(tables), unknown, json.flag("byte_fallback", false), json.where());
}

/// Files of old versions leave the type out; each model is told by what only it has.
std::string type_of(const JsonView& json) {
  if (json.has("type")) return json.at("type").as_string();
  if (json.has("merges")) return "BPE";
  if (json.has("vocab") && json.at("vocab").value().is_array()) return "Unigram";
  if (json.has("continuing_subword_prefix")) return "WordPiece";
  if (json.has("vocab") && json.has("unk_token")) return "WordLevel";
  return json.at("type").as_string();
}

}  // namespace

std::unique_ptr<Model> make_model(const JsonView& json, ModelTables tables) {
  const std::string type = type_of(json);
  if (type != "WordPiece" && type != "BPE" && type != "Unigram" && type != "WordLevel") {
    fail(ErrorCode::Unsupported,
         "{}.type: model type \"{}\" is not supported; supported: BPE, Unigram, WordLevel, "
         "WordPiece",
         json.where(), type);
  }
  const JsonView vocabulary = json.at("vocab");
  if (type == "Unigram") {
    vocabulary.items();  // reports an object
    return unigram_from(json, std::move(tables));
  }
  vocabulary.entries();  // reports a list
  if (type == "WordLevel")
    return make_word_level(json.text("unk_token", "<unk>"), std::move(tables.vocabulary),
                           json.where() + ".vocab");
  return type == "BPE" ? bpe_from(json, std::move(tables))
                       : word_piece_from(json, std::move(tables));
}

}  // namespace attune
