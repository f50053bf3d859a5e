#include "decode/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace attune {

namespace {

constexpr double kOut = -std::numeric_limits<double>::infinity();

void softmax(std::vector<double>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& value : x) sum += value = std::exp(value - top);
  for (double& value : x) value /= sum;
}

/// Every token as likely as the k-th stays.
void keep_top_k(std::vector<double>& z, int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(z.size())) return;
  std::vector<double> sorted = z;
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<double>());
  const double least = sorted[static_cast<size_t>(k - 1)];
  for (double& value : z)
    if (value < least) value = kOut;
}

/// Leaves out the least likely tokens whose probabilities together are at most 1 - p.
void keep_top_p(std::vector<double>& z, double p) {
  if (p >= 1) return;
  std::vector<double> probabilities = z;
  softmax(probabilities);
  std::vector<size_t> order(z.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return probabilities[a] < probabilities[b]; });
  double sum = 0;
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    sum += probabilities[order[i]];
    if (sum > 1 - p) return;
    z[order[i]] = kOut;
  }
}

}  // namespace

std::vector<double> token_probabilities(const std::vector<double>& logits,
                                        const SamplingOptions& options) {
  std::vector<double> z = logits;
  for (double& value : z) value /= options.temperature;
  keep_top_k(z, options.top_k);
  keep_top_p(z, options.top_p);
  softmax(z);
  return z;
}

int32_t draw_token(const std::vector<double>& probabilities, double u) {
  double sum = 0;
  int32_t last = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] <= 0) continue;
    sum += probabilities[i];
    last = static_cast<int32_t>(i);
    if (u < sum) break;
  }
  return last;
}

}  // namespace attune
