#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/encoding.h"

namespace attune {

struct EncodeOptions {
  bool add_special_tokens = true;
  int64_t max_length = 0;  // 0: no limit; counts special tokens
  enum class Truncate { LongestFirst, OnlyFirst, OnlySecond } truncate = Truncate::LongestFirst;
  bool offsets = true;  // false: Encoding::offsets stays empty, which saves time
};

/// Turns text into token ids and back, as the `tokenizers` package does with the same files.
/// Const members may be called from several threads at once.
class Tokenizer {
 public:
  /// Reads tokenizer.json, or else vocab.txt, vocab.json with merges.txt, spiece.model,
  /// tokenizer.model or sentencepiece.bpe.model (see docs/formats.md), with tokenizer_config.json
  /// and special_tokens_map.json where present. Truncation and padding stored in the file are
  /// ignored. Throws NotFound when the folder has none of them, Corrupt for a damaged file,
  /// Unsupported for a stage of an unknown type; each names file and field.
  static Tokenizer load(const std::string& dir);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Throws BadInput for invalid UTF-8 (with the byte offset), and when max_length cannot be
  /// reached: it is smaller than the number of special tokens, or the one sequence that may be
  /// shortened is too short.
  Encoding encode(std::string_view text, const EncodeOptions& options = {}) const;
  Encoding encode_pair(std::string_view a, std::string_view b,
                       const EncodeOptions& options = {}) const;
  /// A text that was split into words before. word_ids = index of the word; offsets count within
  /// the word.
  Encoding encode_words(const std::vector<std::string>& words,
                        const EncodeOptions& options = {}) const;
  /// Windows of at most max_length tokens (specials included) which overlap by `stride` tokens; all
  /// of the text is covered. One window when the text is short. Throws BadInput when stride leaves
  /// no room to move on.
  std::vector<Encoding> encode_windows(std::string_view text, int64_t max_length, int64_t stride,
                                       bool add_special_tokens = true) const;
  /// The same for a pair. LongestFirst may cut both sequences: then every window of the one is
  /// combined with every window of the other, in the order of the reference.
  std::vector<Encoding> encode_windows(
      std::string_view a, std::string_view b, int64_t max_length, int64_t stride,
      EncodeOptions::Truncate truncate = EncodeOptions::Truncate::LongestFirst,
      bool add_special_tokens = true) const;

  /// Text of the ids; ids without a token are left out.
  std::string decode(const std::vector<int32_t>& ids, bool skip_special_tokens = true) const;

  /// The text to show: decode(), and what transformers adds to it where tokenizer_config.json asks
  /// for clean_up_tokenization_spaces and the model is not BPE.
  std::string text(const std::vector<int32_t>& ids) const;

  /// Throws BadInput when there is no token with this id.
  const std::string& token(int32_t id) const;
  std::optional<int32_t> id(std::string_view token) const;
  /// Largest id + 1, added tokens included.
  int64_t vocab_size() const;
  /// Special tokens by their role: what tokenizer_config.json names, or else
  /// special_tokens_map.json, or else tokenizer.json: unk_id is its model's unknown token, the
  /// others are its special added tokens of usual names ("[PAD]" or "<pad>", "<s>", "</s>",
  /// "<|endoftext|>", ...). Without tokenizer.json also what the model's class has by itself. Empty
  /// when there is none: a missing pad_id is never made up.
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> cls_id() const;
  std::optional<int32_t> sep_id() const;
  std::optional<int32_t> mask_id() const;
  std::optional<int32_t> unk_id() const;
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  /// 0: none.
  int64_t model_max_length() const;
  /// SHA-256 of the files read.
  const std::string& fingerprint() const;

  struct Parts;  // tokenizer_parts.h

 private:
  friend class TextStream;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

/// Decodes ids one after another, as a model generates them. Text comes out as soon as no later id
/// can change it: a character of several tokens, or a run of byte tokens, is held back until it is
/// whole. All pieces together are Tokenizer::decode of all ids.
class TextStream {
 public:
  /// `tokenizer` must outlive this.
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special_tokens = true)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}
  /// The text that `id` completes; may be empty.
  std::string add(int32_t id);
  /// The text held back; the stream is empty then.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::vector<int32_t> ids_;  // those of the last text, then those held back
  size_t shown_ = 0;          // how many are of the last text
  std::string last_;          // their text
};

}  // namespace attune
