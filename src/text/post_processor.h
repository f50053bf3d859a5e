#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "text/encoding.h"
#include "text/json_view.h"

namespace attune {

/// Last stage of a tokenizer: puts one or two token runs and the special tokens together by a
/// template, and may take white space out of the offsets.
class PostProcessor {
 public:
  struct Item {
    int sequence;  // 0 or 1; -1: special tokens
    int32_t type_id;
    std::vector<int32_t> special;
  };
  /// Without special tokens: A with type 0, then B with type 1.
  PostProcessor();
  PostProcessor(std::vector<Item> single, std::vector<Item> pair);
  /// Takes white space at the ends of tokens out of their offsets. With `prefix_space`, one blank
  /// at the beginning of the text may have been put there, so it stays.
  void add_trim(bool prefix_space) { trims_.push_back(prefix_space); }
  void set_trims(std::vector<bool> trims) { trims_ = std::move(trims); }
  /// prefix_space of each trim; when there is one, runs need their margins.
  const std::vector<bool>& trims() const { return trims_; }

  /// Number of special tokens a template puts in.
  int64_t added(bool pair) const;
  /// `b` may be null. `offsets` false: (0, 0) is not even stored.
  Encoding assemble(const TokenSlice& a, const TokenSlice* b, bool add_special_tokens,
                    bool offsets) const;
  /// Ids of all special tokens the templates name.
  std::vector<int32_t> special_ids() const;

 private:
  void append(Encoding& out, const TokenSlice& slice, const Item& item, bool offsets) const;
  std::vector<Item> single_, pair_;
  std::vector<bool> trims_;  // prefix_space of each
};

/// Builds what the "post_processor" field describes (TemplateProcessing, BertProcessing,
/// RobertaProcessing, ByteLevel, Sequence of these with at most one that is not ByteLevel). Throws
/// Unsupported, naming an unknown type, its field and file; Corrupt for a malformed one.
PostProcessor make_post_processor(const JsonView& json);
/// [CLS] A [SEP] and [CLS] A [SEP] B [SEP], B with type 1.
PostProcessor make_bert_post_processor(int32_t cls, int32_t sep);

}  // namespace attune
