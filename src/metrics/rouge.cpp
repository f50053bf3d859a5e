#include "metrics/rouge.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

namespace attune {

namespace {

using Words = std::vector<std::string>;

Words words_of(const std::string& text) {
  Words words;
  std::string word;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) {
      word += lower;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

double f1(double overlap, double found, double expected) {
  if (overlap == 0) return 0;
  const double precision = overlap / found, recall = overlap / expected;
  return 2 * precision * recall / (precision + recall);
}

double f1_of_runs(const Words& text, const Words& reference, size_t length) {
  if (text.size() < length || reference.size() < length) return 0;
  std::map<Words, int64_t> counts;
  const auto run = [&](const Words& words, size_t i) {
    return Words(words.begin() + static_cast<int64_t>(i),
                 words.begin() + static_cast<int64_t>(i + length));
  };
  for (size_t i = 0; i + length <= reference.size(); ++i) ++counts[run(reference, i)];
  int64_t overlap = 0;
  for (size_t i = 0; i + length <= text.size(); ++i) {
    const std::map<Words, int64_t>::iterator found = counts.find(run(text, i));
    if (found == counts.end() || found->second == 0) continue;
    --found->second;
    ++overlap;
  }
  return f1(static_cast<double>(overlap), static_cast<double>(text.size() - length + 1),
            static_cast<double>(reference.size() - length + 1));
}

double f1_of_subsequence(const Words& text, const Words& reference) {
  std::vector<int64_t> row(reference.size() + 1);
  for (const std::string& word : text) {
    int64_t diagonal = 0;
    for (size_t j = 0; j < reference.size(); ++j) {
      const int64_t above = row[j + 1];
      row[j + 1] = word == reference[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return f1(static_cast<double>(row.back()), static_cast<double>(text.size()),
            static_cast<double>(reference.size()));
}

}  // namespace

Rouge rouge(const std::string& text, const std::string& reference) {
  const Words found = words_of(text), expected = words_of(reference);
  return {f1_of_runs(found, expected, 1), f1_of_runs(found, expected, 2),
          f1_of_subsequence(found, expected)};
}

}  // namespace attune
