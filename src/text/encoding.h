#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace attune {

/// A tokenised text or pair of texts. All lists have one entry for each token.
struct Encoding {
  std::vector<int32_t> ids, type_ids;
  std::vector<int32_t> word_ids;      // index of the word in its sequence; -1: none
  std::vector<int32_t> sequence_ids;  // 0 or 1; -1: a special token that was put in
  /// Code points [begin, end) of the original text of that sequence; (0, 0) for specials.
  std::vector<std::pair<int32_t, int32_t>> offsets;
  std::vector<uint8_t> special_mask;  // 1 for specials that were put in
  int64_t dropped = 0;                // tokens cut off by truncation
};

/// One tokenised text before special tokens are put in.
struct TokenRun {
  std::vector<int32_t> ids, words;
  std::vector<std::pair<int32_t, int32_t>> offsets;  // empty when not asked for
  /// White space at the beginning and end of the token, in characters; only when offsets are to be
  /// trimmed.
  std::vector<std::pair<uint32_t, uint32_t>> margins;
  size_t size() const { return ids.size(); }
};

/// A part [begin, end) of a run.
struct TokenSlice {
  const TokenRun* run;
  size_t begin, end;
  size_t size() const { return end - begin; }
};

}  // namespace attune
