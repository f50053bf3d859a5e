#pragma once
#include <optional>
#include <vector>

namespace attune {

/// Scores of real-valued predictions. Each function throws BadInput when the vectors are empty or
/// differ in length.

/// Pearson correlation; empty when either side is constant or holds a value that is not finite, or
/// has under 2 rows.
std::optional<double> pearson(const std::vector<double>& gold,
                              const std::vector<double>& predicted);
/// Pearson correlation of ranks, ties sharing their average rank; empty as for pearson.
/// Reference: scipy.stats.spearmanr.
std::optional<double> spearman(const std::vector<double>& gold,
                               const std::vector<double>& predicted);
/// Mean squared error, in squared units of the label.
double mean_squared_error(const std::vector<double>& gold, const std::vector<double>& predicted);
/// Mean absolute error, in units of the label.
double mean_absolute_error(const std::vector<double>& gold, const std::vector<double>& predicted);

struct RegressionReport {
  std::optional<double> pearson, spearman;
  double mse = 0, mae = 0;
};
RegressionReport regression_report(const std::vector<double>& gold,
                                   const std::vector<double>& predicted);

}  // namespace attune
