#pragma once
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "core/model.h"

namespace attune {

/// FLOPs of a training step without results that nobody reads, and the rate at which the matrix
/// products among them run alone.
struct Work {
  double linear = 0, attention = 0;
  std::map<std::pair<int64_t, int64_t>, double> shapes;  // FLOPs by right operand [k, n]
};

/// Of sequences of these lengths; `read`: how many rows of each, at its end, ask and go on in the
/// last block. `full`: every weight has a gradient.
Work work_of(const Model& model, const std::vector<int64_t>& lengths,
             const std::vector<int64_t>& read, bool causal, bool full);
/// GF/s of the products of `work`, over so many rows, one after another.
double ceiling_of(const Work& work, int64_t rows, kernels::DType type);

}  // namespace attune
