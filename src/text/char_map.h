#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/normalizer.h"

namespace attune {

/// The compiled character map of a SentencePiece model: a double-array trie from text to its
/// replacement. Layout: uint32 size of the trie in bytes, the trie's uint32 units, then the
/// replacements, each ended by a zero byte; all little-endian. Applied by extended grapheme
/// clusters: one of less than 6 bytes is looked up whole, where the shortest entry that begins it
/// replaces all of it; otherwise, or when there is none, its characters are looked up one by one.
/// Reference: Kudo and Richardson 2018, "SentencePiece", arXiv 1808.06226; the rule for clusters is
/// the `tokenizers` package's.
class CharMapNormalizer : public Normalizer {
 public:
  /// `where` leads the errors: Corrupt when the trie is larger than the map, is empty, or the
  /// replacements are not UTF-8.
  CharMapNormalizer(std::string_view map, const std::string& where);
  void apply(NormalizedText& text) const override;

  /// What the shortest entry that begins `text` is replaced by. A trie that points outside of
  /// itself or of the replacements has no entry there.
  std::optional<std::string_view> find(std::string_view text) const;

 private:
  struct Changes;
  bool replace(std::u32string_view old, Changes& changes) const;
  std::vector<uint32_t> trie_;
  std::string replacements_;
  std::array<bool, 128> plain_{};  // characters that stay when no mark follows
};

/// Throws Corrupt, led by `where`, for text that is not base64 (RFC 4648, with padding).
std::string decode_base64(std::string_view text, const std::string& where);

}  // namespace attune
