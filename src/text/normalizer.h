#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "text/json_view.h"
#include "text/normalized.h"

namespace attune {

/// First stage of a tokenizer: rewrites text and keeps track of where every character came from.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& text) const = 0;
  /// True only when valid UTF-8 text certainly stays as it is.
  virtual bool keeps(std::string_view) const { return false; }
};

/// BERT's cleaning: drops control characters, makes every white space a blank, sets CJK ideographs
/// apart, strips accents (NFD, nonspacing marks dropped), lower-cases. Reference: Devlin et al.
/// 2018, BERT, BasicTokenizer; details as in the `tokenizers` package.
struct BertOptions {
  bool clean_text = true, handle_chinese_chars = true, strip_accents = true, lowercase = true;
};
class BertNormalizer : public Normalizer {
 public:
  explicit BertNormalizer(BertOptions options) : options_(options) {}
  const BertOptions& options() const { return options_; }
  void apply(NormalizedText& text) const override;

 private:
  BertOptions options_;
};

/// Builds what the "normalizer" field describes; null for null. Throws Unsupported, naming an
/// unknown type, its field and file; Corrupt for a malformed one.
std::unique_ptr<Normalizer> make_normalizer(const JsonView& json);
/// One after the other; null when there is none.
std::unique_ptr<Normalizer> make_normalizer_sequence(
    std::vector<std::unique_ptr<Normalizer>> parts);

}  // namespace attune
