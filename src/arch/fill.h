#pragma once
#include <string>

#include "arch/load.h"
#include "io/checkpoint.h"
#include "nn/transformer.h"

namespace attune {

/// Fills a model's tensors from a checkpoint, or from the seed where `checkpoint` is null. `where`:
/// the checkpoint's folder. Errors: Corrupt when a tensor is missing or does not fit.
LoadReport fill(Transformer& model, const Checkpoint* checkpoint, const std::string& where,
                uint64_t seed);

/// Lets the checkpoint decide what config.json leaves open: whether a language model's output
/// matrix is the token table. As in transformers, a matrix of its own that differs from the table
/// stays its own.
void settle_output(ModelSpec& spec, const Checkpoint& checkpoint);

/// The spelling of a rule's weight that the checkpoint holds, "" when it holds none.
std::string stored_name(const NameRule& rule, const Checkpoint& checkpoint,
                        const std::vector<std::string>& prefixes);

}  // namespace attune
