#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace attune {

/// Corpus BLEU of up to four words, one reference a text; sums over texts, scored at the end.
/// Tokens as mteval-v13a makes them; case counts; an order without a match gets half of the last
/// such order's precision ("exp" smoothing); in [0, 100].
/// Reference: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine
/// Translation"; Post 2018, "A Call for Clarity in Reporting BLEU Scores", arXiv 1804.08771: the
/// numbers are those of sacrebleu (tok:13a, smooth:exp).
class Bleu {
 public:
  void add(const std::string& text, const std::string& reference);
  double score() const;

 private:
  static constexpr size_t kOrders = 4;
  std::array<int64_t, kOrders> matches_{}, totals_{};
  int64_t text_words_ = 0, reference_words_ = 0;
};

/// The tokens of mteval-v13a.
std::vector<std::string> tokens_13a(const std::string& text);

}  // namespace attune
