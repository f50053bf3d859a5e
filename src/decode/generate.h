#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model.h"
#include "decode/sampling.h"

namespace attune {

/// How text is generated: greedily, by sampling, or by beam search.
struct GenerateOptions {
  int64_t max_new_tokens = 20;
  std::vector<int32_t> eos;    // any of these ends a sequence; it stays in the result
  int32_t decoder_start = -1;  // encoder-decoders: the decoder's first token
  bool sample = false;         // draw tokens; otherwise the likeliest
  SamplingOptions sampling;
  uint64_t seed = 1;          // of the draws: a function of (seed, prompt's number, step)
  int64_t first_prompt = 0;   // number of the first prompt, where prompts come in several calls
  int64_t beams = 1;          // above 1: beam search
  double length_penalty = 1;  // beam search: scores are divided by length to this power
  bool cached = true;         // false: every step runs the whole text again (slow; for proofs)
};

/// Continues each prompt. Decoders continue the prompt; encoder-decoders read it and write from
/// decoder_start. All sequences run together; one that has ended leaves the batch. `sets` (int32
/// [prompts] or undefined): the adapter set of each. Returns the new tokens of each prompt, the
/// start token not among them.
/// Beam search is that of transformers 5 without early stopping: of every prompt's
/// (1 + max(1, ends)) * beams best continuations, those that end and are among the best `beams`
/// are finished, the best `beams` that do not end run on; it stops when no running one can still
/// beat the worst of `beams` finished ones, or at max_new_tokens.
/// Errors: BadInput for an empty prompt, a missing decoder_start, options out of range; Unsupported
/// when the model has no language model head.
/// Reference: Wu et al. 2016, "Google's Neural Machine Translation System", arXiv 1609.08144,
/// section 7 (length normalisation).
std::vector<std::vector<int32_t>> generate(Model& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options, const Tensor& sets = {});

}  // namespace attune
