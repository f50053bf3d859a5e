#pragma once
#include <cstdint>
#include <vector>

namespace attune {

/// How a token is drawn. Applied in this order: logits / temperature; the top_k likeliest (0: all);
/// the smallest set of likeliest tokens whose probabilities reach top_p (1: all), never empty.
/// Reference: Fan et al. 2018, "Hierarchical Neural Story Generation", arXiv 1805.04833; Holtzman
/// et al. 2020, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751; order and ties as
/// in transformers' logits processors.
struct SamplingOptions {
  double temperature = 1, top_p = 1;
  int64_t top_k = 0;
};

/// Probabilities of the tokens after the filters; zero for those left out.
std::vector<double> token_probabilities(const std::vector<double>& logits,
                                        const SamplingOptions& options);
/// The token at which the running sum of probabilities passes u in [0, 1).
int32_t draw_token(const std::vector<double>& probabilities, double u);

}  // namespace attune
