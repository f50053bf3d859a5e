#pragma once
#include <cstdint>
#include <vector>

namespace attune {

/// Scores of single-label classification. Vectors have one entry per label;
/// confusion[gold][predicted] counts rows. A precision, recall or F1 whose denominator is zero is
/// 0.
struct ClassificationReport {
  double accuracy = 0;
  double macro_f1 = 0;     // mean over the labels that occur in gold or predicted
  double weighted_f1 = 0;  // mean weighted by support
  double micro_f1 = 0;     // equals accuracy when every row has exactly one label
  double matthews = 0;     // multi-class correlation; 0 when gold or predicted is constant
  std::vector<double> precision, recall, f1;
  std::vector<int64_t> support;
  std::vector<std::vector<int64_t>> confusion;
};

/// Compares label ids in [0, labels). Cost: rows + labels^2.
/// Errors: BadInput when the vectors are empty or differ in length, or an id is out of range.
/// Reference: scikit-learn's definitions (classification_report with zero_division=0); Gorodkin
/// 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
ClassificationReport classification_report(const std::vector<int64_t>& gold,
                                           const std::vector<int64_t>& predicted, int64_t labels);

/// Scores of multi-label classification; F1 with a zero denominator is 0.
struct MultilabelReport {
  double micro_f1 = 0;
  double macro_f1 = 0;     // mean over all labels
  double weighted_f1 = 0;  // mean weighted by support
  double samples_f1 = 0;   // mean over rows
  double accuracy = 0;     // subset accuracy: share of rows whose whole label set is right
  std::vector<double> precision, recall, f1;
  std::vector<int64_t> support;
};

/// Compares two 0/1 matrices [rows][labels].
/// Errors: BadInput when empty, or shapes differ.
/// Reference: scikit-learn's f1_score with a multi-label indicator and zero_division=0.
MultilabelReport multilabel_report(const std::vector<std::vector<uint8_t>>& gold,
                                   const std::vector<std::vector<uint8_t>>& predicted);

}  // namespace attune
