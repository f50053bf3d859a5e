#pragma once
#include <string>

namespace attune {

/// F1 of the overlap of a text with its reference: unigrams, bigrams, longest common subsequence.
struct Rouge {
  double rouge1 = 0, rouge2 = 0, rouge_l = 0;
};

/// Words are runs of ASCII letters and digits in lower case; everything else separates, and there
/// is no stemming. A score whose text or reference has no such words is 0. Cost: words of the text
/// times words of the reference. Reference: Lin 2004, "ROUGE: A Package for Automatic Evaluation of
/// Summaries"; the numbers are those of rouge_score 0.1.2 (use_stemmer=False).
Rouge rouge(const std::string& text, const std::string& reference);

}  // namespace attune
