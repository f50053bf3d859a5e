#pragma once
#include <array>
#include <cstdint>
#include <string>

namespace attune {

/// Corpus chrF2: F-score (beta 2) of runs of one to six characters without white space, one
/// reference a text; sums over texts, scored at the end; in [0, 100].
/// Reference: Popovic 2015, "chrF: character n-gram F-score for automatic MT evaluation"; the
/// numbers are those of sacrebleu (nc:6, nw:0, beta 2).
class Chrf {
 public:
  void add(const std::string& text, const std::string& reference);
  double score() const;

 private:
  static constexpr size_t kOrders = 6;
  std::array<int64_t, kOrders> matches_{}, found_{}, expected_{};
};

}  // namespace attune
