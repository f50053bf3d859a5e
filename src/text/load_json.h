#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "text/model.h"

namespace attune {

/// A parsed tokenizer.json. Entries of model.vocab are taken out into `vocabulary` while parsing,
/// in file order, so that large vocabularies load fast and repeated pieces are noticed; the object
/// stays behind empty.
struct TokenizerJson {
  nlohmann::json root;
  Vocabulary vocabulary;
};

/// Throws Corrupt for text that is not JSON (with line and column) and for vocabulary entries that
/// are not integers.
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& file);

}  // namespace attune
