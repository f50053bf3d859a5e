#include "metrics/regression.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "base/error.h"

namespace attune {
namespace {

void check_lengths(const std::vector<double>& gold, const std::vector<double>& predicted) {
  if (gold.empty() || gold.size() != predicted.size())
    fail(ErrorCode::BadInput,
         "scoring regression: {} gold and {} predicted values, expected the same number, at least "
         "one",
         gold.size(), predicted.size());
}

bool constant(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; });
}

bool finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

/// Ranks from 1; equal values share the mean of their ranks.
std::vector<double> average_ranks(const std::vector<double>& values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return values[static_cast<size_t>(a)] < values[static_cast<size_t>(b)];
  });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    const double value = values[static_cast<size_t>(order[begin])];
    while (end < order.size() && values[static_cast<size_t>(order[end])] == value) ++end;
    for (size_t i = begin; i < end; ++i)
      ranks[static_cast<size_t>(order[i])] = (static_cast<double>(begin + end) + 1) / 2;
    begin = end;
  }
  return ranks;
}

/// Values minus their mean, divided by their norm: products of two such vectors neither overflow
/// nor lose digits.
std::vector<double> normalised(const std::vector<double>& values) {
  const double count = static_cast<double>(values.size());
  double mean = 0, largest = 0, squares = 0;
  for (const double v : values) mean += v / count;
  std::vector<double> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    result[i] = values[i] - mean;
    largest = std::max(largest, std::abs(result[i]));
  }
  if (largest == 0) return result;
  for (double& v : result) {
    v /= largest;
    squares += v * v;
  }
  for (double& v : result) v /= std::sqrt(squares);
  return result;
}

}  // namespace

std::optional<double> pearson(const std::vector<double>& gold,
                              const std::vector<double>& predicted) {
  check_lengths(gold, predicted);
  if (gold.size() < 2 || !finite(gold) || !finite(predicted)) return std::nullopt;
  if (constant(gold) || constant(predicted)) return std::nullopt;
  const std::vector<double> a = normalised(gold), b = normalised(predicted);
  const double r = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  return std::clamp(r, -1.0, 1.0);
}

std::optional<double> spearman(const std::vector<double>& gold,
                               const std::vector<double>& predicted) {
  check_lengths(gold, predicted);
  // Before ranking: comparisons with NaN are no order.
  if (!finite(gold) || !finite(predicted)) return std::nullopt;
  return pearson(average_ranks(gold), average_ranks(predicted));
}

double mean_squared_error(const std::vector<double>& gold, const std::vector<double>& predicted) {
  check_lengths(gold, predicted);
  double sum = 0;
  for (size_t i = 0; i < gold.size(); ++i)
    sum += (gold[i] - predicted[i]) * (gold[i] - predicted[i]);
  return sum / static_cast<double>(gold.size());
}

double mean_absolute_error(const std::vector<double>& gold, const std::vector<double>& predicted) {
  check_lengths(gold, predicted);
  double sum = 0;
  for (size_t i = 0; i < gold.size(); ++i) sum += std::abs(gold[i] - predicted[i]);
  return sum / static_cast<double>(gold.size());
}

RegressionReport regression_report(const std::vector<double>& gold,
                                   const std::vector<double>& predicted) {
  return {pearson(gold, predicted), spearman(gold, predicted), mean_squared_error(gold, predicted),
          mean_absolute_error(gold, predicted)};
}

}  // namespace attune
