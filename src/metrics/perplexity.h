#pragma once
#include <cstdint>

namespace attune {

/// Sums over the predicted tokens of texts.
struct LikelihoodSums {
  double nll = 0;  // negative log-likelihood, natural logarithm
  int64_t tokens = 0, words = 0, bytes = 0;
};

/// exp of the mean negative log-likelihood of a token, a word, a byte; 1 when there is none.
/// Figures beyond double's range are its largest number. Words are what white space separates;
/// perplexities of words and bytes compare models with different tokenizers.
/// Reference: Gao et al., "lm-evaluation-harness": word_perplexity, byte_perplexity, bits_per_byte.
struct PerplexityReport {
  double loss = 0, perplexity = 1, word_perplexity = 1, byte_perplexity = 1, bits_per_byte = 0;
};
PerplexityReport perplexity_report(const LikelihoodSums& sums);

}  // namespace attune
