#include "metrics/bleu.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

#include "metrics/words.h"

namespace attune {

namespace {

using Words = std::vector<std::string>;

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool stop(char c) {
  return c == '.' || c == ',';
}

/// ASCII punctuation that always stands alone: all but ' , - and .
bool lone(char c) {
  return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
         (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

/// Rewrites every pair that `first` and `second` accept, from the left, without overlaps; spaces
/// go before and behind `spaced` of the pair (0: its first character, 1: its second).
template <class First, class Second>
std::string space_pairs(const std::string& text, const First& first, const Second& second,
                        int spaced) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i + 1 == text.size() || !first(text[i]) || !second(text[i + 1])) {
      result += text[i];
      continue;
    }
    const char a = text[i], b = text[++i];
    if (spaced == 0) {
      result.append({' ', a, ' ', b});
    } else {
      result.append({a, ' ', b, ' '});
    }
  }
  return result;
}

std::map<Words, int64_t> runs(const Words& words, size_t length) {
  std::map<Words, int64_t> counts;
  for (size_t i = 0; i + length <= words.size(); ++i)
    ++counts[Words(words.begin() + static_cast<int64_t>(i),
                   words.begin() + static_cast<int64_t>(i + length))];
  return counts;
}

}  // namespace

std::vector<std::string> tokens_13a(const std::string& text) {
  std::string line = replaced(replaced(replaced(text, "<skipped>", ""), "-\n", ""), "\n", " ");
  for (const std::pair<std::string_view, std::string_view>& entity :
       {std::pair<std::string_view, std::string_view>{"&quot;", "\""},
        {"&amp;", "&"},
        {"&lt;", "<"},
        {"&gt;", ">"}})
    line = replaced(line, entity.first, entity.second);
  std::string spaced;
  for (const char c : " " + line + " ") {
    if (lone(c)) {
      spaced.append({' ', c, ' '});
    } else {
      spaced += c;
    }
  }
  const auto no_digit = [](char c) { return !digit(c); };
  spaced = space_pairs(spaced, no_digit, stop, 1);
  spaced = space_pairs(spaced, stop, no_digit, 0);
  spaced = space_pairs(
      spaced, digit, [](char c) { return c == '-'; }, 1);
  return blank_separated(spaced);
}

void Bleu::add(const std::string& text, const std::string& reference) {
  const Words found = tokens_13a(text), expected = tokens_13a(reference);
  text_words_ += static_cast<int64_t>(found.size());
  reference_words_ += static_cast<int64_t>(expected.size());
  for (size_t order = 0; order < kOrders; ++order) {
    const std::map<Words, int64_t> allowed = runs(expected, order + 1);
    for (const std::pair<const Words, int64_t>& entry : runs(found, order + 1)) {
      totals_[order] += entry.second;
      const std::map<Words, int64_t>::const_iterator known = allowed.find(entry.first);
      if (known != allowed.end()) matches_[order] += std::min(entry.second, known->second);
    }
  }
}

double Bleu::score() const {
  if (std::all_of(matches_.begin(), matches_.end(), [](int64_t count) { return count == 0; }))
    return 0;
  double sum = 0, smooth = 1;
  for (size_t order = 0; order < kOrders; ++order) {
    if (totals_[order] == 0) return 0;
    if (matches_[order] == 0) smooth *= 2;
    const double matches = matches_[order] == 0 ? 1 / smooth : static_cast<double>(matches_[order]);
    sum += std::log(100 * matches / static_cast<double>(totals_[order]));
  }
  const double ratio = static_cast<double>(reference_words_) /
                       static_cast<double>(std::max<int64_t>(1, text_words_));
  return std::exp(std::min(0.0, 1 - ratio) + sum / kOrders);
}

}  // namespace attune
