#include "metrics/classification.h"

#include <cmath>

#include "base/error.h"

namespace attune {
namespace {

double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

/// F1 from counts: 2 tp / (predicted + gold).
double f1_of(int64_t both, int64_t predicted, int64_t gold) {
  return ratio(2.0 * static_cast<double>(both), static_cast<double>(predicted + gold));
}

void check_label(int64_t label, int64_t labels, const char* side, size_t row) {
  if (label < 0 || label >= labels)
    fail(ErrorCode::BadInput,
         "scoring classification: the {} label of row {} is {}, expected an id from 0 to {}", side,
         row, label, labels - 1);
}

double matthews_of(const std::vector<int64_t>& gold, const std::vector<int64_t>& predicted,
                   int64_t correct, int64_t rows) {
  const double n = static_cast<double>(rows);
  double cross = 0, gold_square = 0, predicted_square = 0;
  for (size_t k = 0; k < gold.size(); ++k) {
    const double g = static_cast<double>(gold[k]), p = static_cast<double>(predicted[k]);
    cross += g * p;
    gold_square += g * g;
    predicted_square += p * p;
  }
  const double spread = (n * n - gold_square) * (n * n - predicted_square);
  return spread > 0 ? (static_cast<double>(correct) * n - cross) / std::sqrt(spread) : 0;
}

}  // namespace

ClassificationReport classification_report(const std::vector<int64_t>& gold,
                                           const std::vector<int64_t>& predicted, int64_t labels) {
  if (gold.empty() || gold.size() != predicted.size())
    fail(ErrorCode::BadInput,
         "scoring classification: {} gold and {} predicted labels, expected the same number, at "
         "least one",
         gold.size(), predicted.size());
  ClassificationReport report;
  const size_t count = labels > 0 ? static_cast<size_t>(labels) : 0;
  report.confusion.assign(count, std::vector<int64_t>(count, 0));
  for (size_t row = 0; row < gold.size(); ++row) {
    check_label(gold[row], labels, "gold", row);
    check_label(predicted[row], labels, "predicted", row);
    ++report.confusion[static_cast<size_t>(gold[row])][static_cast<size_t>(predicted[row])];
  }
  std::vector<int64_t> given(count, 0);
  report.support.assign(count, 0);
  int64_t correct = 0, present = 0;
  for (size_t g = 0; g < count; ++g) {
    correct += report.confusion[g][g];
    for (size_t p = 0; p < count; ++p) {
      report.support[g] += report.confusion[g][p];
      given[p] += report.confusion[g][p];
    }
  }
  for (size_t k = 0; k < count; ++k) {
    const int64_t both = report.confusion[k][k];
    report.precision.push_back(ratio(static_cast<double>(both), static_cast<double>(given[k])));
    report.recall.push_back(
        ratio(static_cast<double>(both), static_cast<double>(report.support[k])));
    report.f1.push_back(f1_of(both, given[k], report.support[k]));
    report.macro_f1 += report.f1[k];
    report.weighted_f1 += report.f1[k] * static_cast<double>(report.support[k]);
    if (given[k] + report.support[k] > 0) ++present;
  }
  const int64_t rows = static_cast<int64_t>(gold.size());
  report.accuracy = static_cast<double>(correct) / static_cast<double>(rows);
  report.micro_f1 = report.accuracy;
  report.macro_f1 /= static_cast<double>(present);
  report.weighted_f1 /= static_cast<double>(rows);
  report.matthews = matthews_of(report.support, given, correct, rows);
  return report;
}

namespace {

/// Per-label scores and their means from counts.
void score_labels(const std::vector<int64_t>& both, const std::vector<int64_t>& given,
                  MultilabelReport& report) {
  const size_t labels = both.size();
  int64_t all_both = 0, all_given = 0, all_gold = 0;
  for (size_t k = 0; k < labels; ++k) {
    const int64_t support = report.support[k];
    report.precision.push_back(ratio(static_cast<double>(both[k]), static_cast<double>(given[k])));
    report.recall.push_back(ratio(static_cast<double>(both[k]), static_cast<double>(support)));
    report.f1.push_back(f1_of(both[k], given[k], support));
    report.macro_f1 += report.f1[k] / static_cast<double>(labels);
    report.weighted_f1 += report.f1[k] * static_cast<double>(support);
    all_both += both[k];
    all_given += given[k];
    all_gold += support;
  }
  report.micro_f1 = f1_of(all_both, all_given, all_gold);
  report.weighted_f1 = ratio(report.weighted_f1, static_cast<double>(all_gold));
}

}  // namespace

MultilabelReport multilabel_report(const std::vector<std::vector<uint8_t>>& gold,
                                   const std::vector<std::vector<uint8_t>>& predicted) {
  if (gold.empty() || gold.size() != predicted.size() || gold[0].empty())
    fail(ErrorCode::BadInput,
         "scoring multi-label classification: {} gold and {} predicted rows, expected the same "
         "number, at least one, with at least one label",
         gold.size(), predicted.size());
  const size_t labels = gold[0].size();
  MultilabelReport report;
  report.support.assign(labels, 0);
  std::vector<int64_t> both(labels, 0), given(labels, 0);
  int64_t exact = 0;
  for (size_t row = 0; row < gold.size(); ++row) {
    if (gold[row].size() != labels || predicted[row].size() != labels)
      fail(ErrorCode::BadInput,
           "scoring multi-label classification: row {} has {} gold and {} predicted labels, "
           "expected {}",
           row, gold[row].size(), predicted[row].size(), labels);
    int64_t row_both = 0, row_given = 0, row_gold = 0;
    for (size_t k = 0; k < labels; ++k) {
      const int64_t g = gold[row][k] != 0, p = predicted[row][k] != 0;
      both[k] += g & p;
      given[k] += p;
      report.support[k] += g;
      row_both += g & p;
      row_given += p;
      row_gold += g;
    }
    report.samples_f1 += f1_of(row_both, row_given, row_gold);
    exact += row_both == row_given && row_both == row_gold;
  }
  const double rows = static_cast<double>(gold.size());
  report.samples_f1 /= rows;
  report.accuracy = static_cast<double>(exact) / rows;
  score_labels(both, given, report);
  return report;
}

}  // namespace attune
