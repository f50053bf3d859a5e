#include "text/normalized.h"

#include <algorithm>

#include "text/unicode.h"

namespace attune {
namespace {

using Change = NormalizedText::Change;

/// Decomposes and sorts marks by class. A change travels with its character when marks are
/// reordered, as in the reference, so that spans after reordering agree with it.
std::vector<Change> decomposed(const std::u32string& chars, bool compatible) {
  std::vector<Change> out;
  std::vector<int> classes;
  std::vector<char32_t> parts;
  out.reserve(chars.size() * 2);
  struct Item {
    int order;
    Change change;
  };
  std::vector<Item> pending;
  const auto flush = [&] {
    std::stable_sort(pending.begin(), pending.end(),
                     [](const Item& a, const Item& b) { return a.order < b.order; });
    for (const Item& item : pending) out.push_back(item.change);
    pending.clear();
  };
  for (const char32_t c : chars) {
    unicode::decompose(c, compatible, parts);
    for (size_t i = 0; i < parts.size(); ++i) {
      const int order = unicode::combining_class(parts[i]);
      if (order == 0) {
        flush();
        out.emplace_back(parts[i], i == 0 ? 0 : 1);
      } else {
        pending.push_back({order, {parts[i], i == 0 ? 0 : 1}});
      }
    }
  }
  flush();
  return out;
}

/// Canonical composition of a decomposed sequence; a character swallowed by a composite becomes a
/// removal.
std::vector<Change> recomposed(const std::vector<Change>& in) {
  std::vector<Change> out, blocked;
  Change starter{0, 0};
  bool has_starter = false;
  int last_class = -1;
  const auto emit = [&] {
    if (has_starter) out.push_back(starter);
    out.insert(out.end(), blocked.begin(), blocked.end());
    blocked.clear();
    last_class = -1;
  };
  for (const Change& change : in) {
    const int order = unicode::combining_class(change.first);
    if (!has_starter) {
      if (order != 0) {
        out.push_back(change);
      } else {
        starter = change;
        has_starter = true;
      }
      continue;
    }
    if (last_class < order || last_class == -1) {
      const char32_t composite = unicode::compose(starter.first, change.first);
      if (composite != 0) {
        starter = {composite, starter.second + change.second - 1};
        continue;
      }
    }
    if (order == 0) {
      emit();
      starter = change;
    } else {
      blocked.push_back(change);
      last_class = order;
    }
  }
  emit();
  return out;
}

}  // namespace

NormalizedText::NormalizedText(std::u32string chars, int32_t origin)
    : chars_(std::move(chars)), origin_(origin) {
  spans_.reserve(chars_.size());
  for (int32_t i = 0; i < int32_t(chars_.size()); ++i) {
    spans_.emplace_back(origin + i, origin + i + 1);
  }
}

void NormalizedText::transform(const std::vector<Change>& changes, size_t removed) {
  // Characters at the start that stand for nothing of the original stay as they are.
  size_t first = 0;
  while (first < spans_.size() && spans_[first].first == spans_[first].second) ++first;
  if (first == spans_.size()) first = 0;
  std::u32string chars(chars_, 0, first);
  std::vector<Span> spans(spans_.begin(), spans_.begin() + std::ptrdiff_t(first));
  chars.reserve(changes.size());
  spans.reserve(changes.size());
  size_t at = first + removed;
  for (const auto& [c, change] : changes) {
    Span span{origin_, origin_};
    if (change > 0) {
      if (at > 0) span = spans_[at - 1];
    } else {
      // A text that began with inserted characters has more changes than replaceable characters.
      if (at >= spans_.size()) break;
      span = spans_[at];
      at += size_t(1 - change);
    }
    chars.push_back(c);
    spans.push_back(span);
  }
  chars_ = std::move(chars);
  spans_ = std::move(spans);
}

void NormalizedText::normalize(Form form) {
  const bool compatible = form == Form::Nfkd || form == Form::Nfkc;
  const bool compose = form == Form::Nfc || form == Form::Nfkc;
  std::vector<Change> changes = decomposed(chars_, compatible);
  transform(compose ? recomposed(changes) : changes);
}

void NormalizedText::lowercase() {
  const bool one_each = std::find(chars_.begin(), chars_.end(), U'\u0130') == chars_.end();
  if (one_each && !spans_.empty() && spans_[0].first < spans_[0].second) {
    return map([](char32_t c) { return unicode::to_lower(c).chars[0]; });
  }
  std::vector<Change> changes;
  changes.reserve(chars_.size());
  for (const char32_t c : chars_) {
    const unicode::Lower lower = unicode::to_lower(c);
    changes.emplace_back(lower.chars[0], 0);
    if (lower.count == 2) changes.emplace_back(lower.chars[1], 1);
  }
  transform(changes);
}

void NormalizedText::strip(bool left, bool right) {
  size_t begin = 0, end = chars_.size();
  while (left && begin < end && unicode::is_white(chars_[begin])) ++begin;
  while (right && end > begin && unicode::is_white(chars_[end - 1])) --end;
  chars_ = chars_.substr(begin, end - begin);
  spans_ = std::vector<Span>(spans_.begin() + std::ptrdiff_t(begin),
                             spans_.begin() + std::ptrdiff_t(end));
}

void NormalizedText::prepend(std::u32string_view text) {
  if (chars_.empty() || text.empty()) return;
  chars_.insert(0, text);
  spans_.insert(spans_.begin(), text.size(), Span(spans_[0]));
}

void NormalizedText::replace(const std::vector<Span>& matches, std::u32string_view content) {
  std::u32string chars;
  std::vector<Span> spans;
  size_t at = 0;
  const auto copy_until = [&](size_t end) {
    chars.append(chars_, at, end - at);
    spans.insert(spans.end(), spans_.begin() + std::ptrdiff_t(at),
                 spans_.begin() + std::ptrdiff_t(end));
  };
  for (const auto& [begin, end] : matches) {
    copy_until(size_t(begin));
    const Span span = end > 0 ? spans_[size_t(end) - 1] : Span(origin_, origin_);
    chars.append(content);
    spans.insert(spans.end(), content.size(), span);
    at = size_t(end);
  }
  copy_until(chars_.size());
  chars_ = std::move(chars);
  spans_ = std::move(spans);
}

}  // namespace attune
