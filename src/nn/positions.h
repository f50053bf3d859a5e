#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/ops/rotary.h"
#include "nn/spec.h"
#include "tensor/rows.h"

namespace attune {

/// Angles a position of the first pairs, float [dims / 2], for a text of `length` tokens (dynamic
/// and longrope choose by it). In single precision whatever the model's type is, operation by
/// operation as transformers computes them, because a large position multiplies every rounding.
/// References: Su et al. 2021, arXiv 2104.09864; Chen et al. 2023, arXiv 2306.15595 (linear);
/// bloc97 and emozilla 2023 (dynamic NTK); Peng et al. 2023, arXiv 2309.00071 (yarn); Ding et al.
/// 2024, arXiv 2402.13753 (longrope); Grattafiori et al. 2024, arXiv 2407.21783 (llama3).
at::Tensor inverse_frequencies(const RotarySpec& spec, int64_t length);
/// Cosines and sines of rows at `positions` (int32 [rows]), in the master type.
RotaryTable rotary_table(const RotarySpec& spec, const at::Tensor& positions, const RowIndex& rows,
                         at::ScalarType master);

/// Bucket of every distance from -reach to reach (key's position - query's), int32 [2 reach + 1];
/// reach is where the last bucket begins at the latest.
/// Reference: Raffel et al. 2020, arXiv 1910.10683, section 2.1.
at::Tensor bucket_index(const BucketSpec& spec);

/// True when the rows of every sequence stand one after another.
bool consecutive(const at::Tensor& positions, const RowIndex& rows);

}  // namespace attune
