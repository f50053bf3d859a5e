#include "metrics/perplexity.h"

#include <cmath>
#include <limits>

namespace attune {

namespace {

double mean(double sum, int64_t count) {
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

double bounded_exp(double x) {
  const double value = std::exp(x);
  return std::isinf(value) ? std::numeric_limits<double>::max() : value;
}

}  // namespace

PerplexityReport perplexity_report(const LikelihoodSums& sums) {
  PerplexityReport report;
  report.loss = mean(sums.nll, sums.tokens);
  report.perplexity = bounded_exp(report.loss);
  report.word_perplexity = bounded_exp(mean(sums.nll, sums.words));
  report.byte_perplexity = bounded_exp(mean(sums.nll, sums.bytes));
  report.bits_per_byte = mean(sums.nll, sums.bytes) / std::log(2.0);
  return report;
}

}  // namespace attune
