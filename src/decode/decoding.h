#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/cache.h"
#include "core/model.h"

namespace attune {

/// Sequences that grow by a token a step, all in one batch. Decoders continue their prompts;
/// encoder-decoders read them and write from a start token.
class Decoding {
 public:
  using Ids = std::vector<int32_t>;
  /// start: an encoder-decoder's first token. cached: later steps run the new rows only; otherwise,
  /// and where an edit of the decoder makes something else of a row alone than in its text (a
  /// convolution over rows, a mean over them), every step runs whole texts. sets: int32 [prompts]
  /// or undefined: the adapter set of each.
  Decoding(Model& model, const std::vector<Ids>& prompts, int32_t start, bool cached,
           const Tensor& sets);

  /// Logits of the next token of every sequence [sequences, vocabulary], in the master type. Runs
  /// the model once; go_on() must follow before it is called again.
  Tensor next_logits();
  /// Sequence i becomes a copy of the present sequence from[i] with tokens[i] behind it; those that
  /// `from` does not name are gone.
  void go_on(const std::vector<int64_t>& from, const std::vector<int32_t>& tokens);

  size_t size() const { return texts_.size(); }
  /// False when every step runs whole texts.
  bool cached() const { return cached_; }
  /// The prompt that a sequence came from.
  int64_t prompt_of(size_t sequence) const { return prompts_[sequence]; }

 private:
  Model& model_;
  Tensor sets_;
  bool encoder_ = false, cached_ = true, started_ = false;
  std::vector<int64_t> prompts_;
  std::vector<Ids> texts_, sources_;
  Cache cache_;
};

}  // namespace attune
