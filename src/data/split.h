#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace attune {

/// Row numbers of the two parts, each ascending; together every row exactly once.
struct Split {
  std::vector<int64_t> train, eval;
};

/// Holds out rows for evaluation, each stratum (label of the row) in proportion, largest remainders
/// first. Which rows is a function of the seed alone. share: in (0, 1) a share of the rows, at
/// least one; from 1 on a number of rows. A stratum keeps at least one row in train, so one that
/// occurs once stays there whole. Errors: BadInput for a share that is out of range, or that would
/// leave no row in one of the parts.
Split split(const std::vector<std::string>& strata, double share, uint64_t seed);

}  // namespace attune
