#pragma once
#include <cstdint>

#include "metrics/bleu.h"
#include "metrics/chrf.h"
#include "metrics/perplexity.h"
#include "tasks/generation.h"

namespace attune {

/// Loss and perplexity of the targets, and what greedy decoding writes compared with them. Decoding
/// is what predict() does, given as many tokens as the longest target of the batch where that is
/// more.
class GenerationTally final : public Tally {
 public:
  /// decoded: rows of the data that are decoded, from the first on; 0: all. translation: BLEU, chrF
  /// and all of ROUGE too, not exact match and ROUGE-L alone.
  GenerationTally(const GenerationTask& task, int64_t decoded, bool translation)
      : task_(task), decoded_(decoded), translation_(translation) {}
  void measure(Model& model, const Batch& batch, const std::vector<Example>& examples) override;
  Json metrics() const override;

 private:
  void compare(const std::string& text, const std::string& reference);

  const GenerationTask& task_;
  const int64_t decoded_;
  const bool translation_;
  LikelihoodSums sums_;
  int64_t examples_ = 0, compared_ = 0, exact_ = 0;
  double rouge1_ = 0, rouge2_ = 0, rouge_l_ = 0;
  Bleu bleu_;
  Chrf chrf_;
};

}  // namespace attune
