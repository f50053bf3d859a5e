#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "text/model.h"

namespace attune {

/// A parsed tokenizer.json. Entries of model.vocab and model.merges are taken out into `tables`
/// while parsing, in file order, so that large vocabularies load fast and repeated pieces are
/// noticed; an empty object or list stays behind.
struct TokenizerJson {
  nlohmann::json root;
  ModelTables tables;
};

/// Throws Corrupt for text that is not JSON (with line and column), for vocabulary entries that are
/// neither piece: id nor [piece, score], and for merges that are neither "a b" nor ["a", "b"].
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& file);

/// Reads {piece: id, ...}, as vocab.json has it. Throws as parse_tokenizer_json.
Vocabulary parse_vocabulary_json(std::string_view text, const std::string& file);

/// The value of a number as the `tokenizers` package reads it from JSON: digits as an integer, then
/// one multiplication or division by a power of ten. May be one unit in the last place away from
/// the nearest double, which decides between equally good segmentations.
double json_score(std::string_view number);

}  // namespace attune
