#pragma once
#include <cstdint>
#include <vector>

#include "decode/decoding.h"
#include "decode/generate.h"

namespace attune {

/// The best finished sequence of every prompt: generate() says how. `decoding` holds the prompts as
/// they were given.
std::vector<std::vector<int32_t>> beam_search(Decoding& decoding, size_t prompts,
                                              const GenerateOptions& options);

}  // namespace attune
