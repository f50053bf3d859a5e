#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model.h"

namespace attune {

struct GreedyOptions {
  int64_t max_new_tokens = 20;
  std::vector<int32_t> eos;    // any of these ends a sequence; it stays in the result
  int32_t decoder_start = -1;  // encoder-decoders: the decoder's first token
  bool cached = true;          // false: every step runs the whole text again (slow; for proofs)
};

/// Continues each prompt with the likeliest token, again and again. Decoders continue the prompt;
/// encoder-decoders read it and write from decoder_start. All sequences run together; one that has
/// ended leaves the batch. `sets` (int32 [prompts] or undefined): the adapter set of each. Returns
/// the new tokens of each prompt, the start token not among them.
/// Errors: BadInput for an empty prompt, a missing decoder_start, max_new_tokens below 1;
/// Unsupported when the model has no language model head.
std::vector<std::vector<int32_t>> greedy(Model& model,
                                         const std::vector<std::vector<int32_t>>& prompts,
                                         const GreedyOptions& options, const Tensor& sets = {});

}  // namespace attune
