#pragma once
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/json_view.h"
#include "text/normalized.h"
#include "text/pattern.h"

namespace attune {

/// Second stage of a tokenizer: cuts normalised text into pre-tokens ("words").
class PreTokenizer {
 public:
  using Range = std::pair<int32_t, int32_t>;
  virtual ~PreTokenizer() = default;
  /// Replaces every range of `ranges` (characters of `text`) by its parts; empty parts are left
  /// out. May rewrite the text; what lies outside of the ranges may be lost then.
  virtual void apply(NormalizedText& text, std::vector<Range>& ranges) const = 0;
  /// True for BERT's own, which has a faster way (bert_words.h).
  virtual bool is_bert() const { return false; }
  /// What a stage does when it can be done on UTF-8 (byte_words.h): nothing of that kind, isolate
  /// the matches of patterns, or also write every byte of the parts as its printable character,
  /// last.
  enum class ByteStep { None, Cut, Write };
  /// Appends the patterns of Cut and Write, which live as long as this.
  virtual ByteStep byte_step(std::vector<const Pattern*>&) const { return ByteStep::None; }
};

/// Builds what the "pre_tokenizer" field describes; null for null. Throws Unsupported, naming an
/// unknown type, its field and file; Corrupt for a malformed one.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonView& json);

/// GPT-2's stage: words by its regular expression (use_regex), then every byte as its printable
/// character. add_prefix_space puts a blank before text that does not begin with one.
std::unique_ptr<PreTokenizer> make_byte_level(bool add_prefix_space, bool use_regex);

/// SentencePiece's stage: blanks become `replacement`, text is led by one (always, never, or where
/// it is the first of the input), and with `split` every `replacement` begins a word.
struct MetaspaceOptions {
  char32_t replacement = U'\u2581';
  enum class Prepend { Always, First, Never } prepend = Prepend::Always;
  bool split = true;
};
/// Of the pre-tokenizer or decoder "Metaspace". Throws Corrupt.
MetaspaceOptions read_metaspace(const JsonView& json);
std::unique_ptr<PreTokenizer> make_metaspace(const MetaspaceOptions& options);

}  // namespace attune
