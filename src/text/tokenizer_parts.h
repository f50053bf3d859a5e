#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bert_words.h"
#include "text/byte_words.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace attune {

/// The stages of a tokenizer and what is known about its tokens. Immutable once loaded.
struct Tokenizer::Parts {
  std::unique_ptr<Normalizer> normalizer;       // null: none
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // null: none
  std::unique_ptr<Model> model;
  PostProcessor post_processor;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<BertWords> bert_words;  // set: replaces normalizer and pre_tokenizer
  std::unique_ptr<ByteWords> byte_words;  // set: does the same for text the normalizer keeps
  std::vector<AddedToken> added;
  std::unordered_map<std::string, int32_t> added_ids;
  std::unordered_map<int32_t, size_t> added_index;  // id -> place in `added`
  std::unordered_map<int32_t, std::string>
      normalized;                                      // added tokens whose normalised form differs
  std::vector<std::pair<uint32_t, uint32_t>> margins;  // of the model's tokens, when needed
  AddedTokenMatcher raw_matcher, normalized_matcher;
  std::optional<int32_t> pad, cls, sep, mask, unk, bos, eos;
  int64_t model_max_length = 0;
  bool truncate_left = false;
  bool cleans_up = false;  // the text that is shown
  std::string fingerprint;

  std::optional<int32_t> id(std::string_view token) const;
  /// What a decoder sees of an id; null when it sees nothing.
  const std::string* shown(int32_t id, bool skip_special_tokens) const;
  /// Adds tokens, prepares the matchers and the fast path. Throws Corrupt when an id is taken by
  /// another token.
  void finish(std::vector<AddedToken> tokens, const std::string& where);
  void set_post_processor(PostProcessor value);

  /// Tokenises one text and appends to `out`. word >= 0: every token belongs to that word.
  void run(std::string_view text, bool offsets, int32_t word, TokenRun& out) const;

 private:
  struct Sink;
  void add_token(AddedToken token, const std::string& where);
  void run_gap(std::string_view text, int32_t origin, Sink& sink) const;
  bool run_bytes(std::string_view text, int32_t origin, Sink& sink) const;
  void run_words(NormalizedText text, Sink& sink) const;
};

}  // namespace attune
