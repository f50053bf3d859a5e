#pragma once
#include <nlohmann/json.hpp>

namespace attune {

/// tokenizer.json of a BERT tokenizer of thirteen pieces.
inline nlohmann::json small_tokenizer() {
  nlohmann::json out = {{"model",
                         {{"type", "WordPiece"},
                          {"unk_token", "[UNK]"},
                          {"continuing_subword_prefix", "##"},
                          {"max_input_chars_per_word", 100}}},
                        {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}}},
                        {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
                        {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}}};
  int id = 0;
  for (const char* piece : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able", "a", "b",
                            "c", "d", ".", "##s"}) {
    out["model"]["vocab"][piece] = id++;
  }
  out["post_processor"] = {{"type", "BertProcessing"},
                           {"sep", nlohmann::json::array({"[SEP]", 3})},
                           {"cls", nlohmann::json::array({"[CLS]", 2})}};
  for (const int special : {0, 1, 2, 3, 4}) {
    constexpr const char* kNames[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    out["added_tokens"].push_back(
        {{"id", special}, {"content", kNames[special]}, {"special", true}, {"normalized", false}});
  }
  return out;
}

}  // namespace attune
