#pragma once
#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "nn/spec.h"

/// What bench/step reads at every step.
namespace attune {

/// Lengths of `sequences` texts in each of `batches`: lognormal with mean 25, cut at 128. Their
/// sigma makes 32 of them, padded to the longest, 3.0 times their tokens.
std::vector<std::vector<int64_t>> lognormal_lengths(int64_t batches, int64_t sequences);

/// A training batch of made-up texts, the `number`th of a run. Words come by Zipf's law, as in real
/// texts: the id is the rank. `answer`: the percent of each text, at its end, whose words are
/// labels; 0: two labels, one a text.
Batch step_batch(const ModelSpec& spec, const std::vector<int64_t>& lengths, uint64_t number,
                 int64_t answer);

}  // namespace attune
