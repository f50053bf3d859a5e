#pragma once
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/json_view.h"

namespace attune {

/// Second stage of a tokenizer: cuts normalised text into pre-tokens ("words").
class PreTokenizer {
 public:
  using Range = std::pair<int32_t, int32_t>;
  virtual ~PreTokenizer() = default;
  /// Replaces every range of `ranges` (code points of `text`) by its parts; empty parts are left
  /// out.
  void apply(std::u32string_view text, std::vector<Range>& ranges) const;
  /// True for BERT's own, which has a faster way (bert_words.h).
  virtual bool is_bert() const { return false; }

 protected:
  /// Cuts one piece; ranges are relative to it.
  virtual void cut(std::u32string_view piece, std::vector<Range>& parts) const = 0;
};

/// Builds what the "pre_tokenizer" field describes; null for null. Throws Unsupported, naming an
/// unknown type, its field and file; Corrupt for a malformed one.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonView& json);

}  // namespace attune
