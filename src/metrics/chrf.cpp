#include "metrics/chrf.h"

#include <algorithm>
#include <map>

#include "metrics/words.h"

namespace attune {

namespace {

using Run = std::u32string;

Run characters(const std::string& text) {
  Run result;
  for (const char32_t c : characters_of(text))
    if (!is_blank(c)) result += c;
  return result;
}

std::map<Run, int64_t> runs(const Run& text, size_t length) {
  std::map<Run, int64_t> counts;
  for (size_t i = 0; i + length <= text.size(); ++i) ++counts[text.substr(i, length)];
  return counts;
}

int64_t total(const std::map<Run, int64_t>& counts) {
  int64_t sum = 0;
  for (const std::pair<const Run, int64_t>& entry : counts) sum += entry.second;
  return sum;
}

}  // namespace

void Chrf::add(const std::string& text, const std::string& reference) {
  const Run found = characters(text), expected = characters(reference);
  for (size_t order = 0; order < kOrders; ++order) {
    const std::map<Run, int64_t> own = runs(found, order + 1), other = runs(expected, order + 1);
    if (!other.empty()) found_[order] += total(own);  // a text too short for runs of this length
    expected_[order] += total(other);
    for (const std::pair<const Run, int64_t>& entry : own) {
      const std::map<Run, int64_t>::const_iterator known = other.find(entry.first);
      if (known != other.end()) matches_[order] += std::min(entry.second, known->second);
    }
  }
}

double Chrf::score() const {
  constexpr double kFactor = 4;  // beta squared
  double precision = 0, recall = 0, orders = 0;
  for (size_t order = 0; order < kOrders; ++order) {
    if (found_[order] == 0 || expected_[order] == 0) continue;
    precision += static_cast<double>(matches_[order]) / static_cast<double>(found_[order]);
    recall += static_cast<double>(matches_[order]) / static_cast<double>(expected_[order]);
    ++orders;
  }
  if (orders == 0 || precision + recall == 0) return 0;
  precision /= orders;
  recall /= orders;
  return 100 * (1 + kFactor) * precision * recall / (kFactor * precision + recall);
}

}  // namespace attune
