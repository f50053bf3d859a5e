#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attune {

/// Text under normalisation: code points, and for each the span [begin, end) of original code
/// points it stands for. Same rules as NormalizedString of the `tokenizers` package, counted in
/// code points instead of bytes.
class NormalizedText {
 public:
  using Span = std::pair<int32_t, int32_t>;
  /// A new character and what it does to the old ones: 0 replaces one, 1 is inserted (it takes the
  /// span of the character before), -n replaces one and removes the n after it.
  using Change = std::pair<char32_t, int>;
  enum class Form { Nfd, Nfkd, Nfc, Nfkc };

  /// `origin`: number of code points before this text in the whole input.
  explicit NormalizedText(std::u32string chars, int32_t origin = 0);
  /// `spans`: one for each character.
  NormalizedText(std::u32string chars, std::vector<Span> spans, int32_t origin)
      : chars_(std::move(chars)), spans_(std::move(spans)), origin_(origin) {}

  const std::u32string& chars() const { return chars_; }
  const std::vector<Span>& spans() const { return spans_; }
  int32_t origin() const { return origin_; }
  int32_t size() const { return int32_t(chars_.size()); }
  /// Original span of the characters [begin, end), which must not be empty.
  Span span(int32_t begin, int32_t end) const {
    return {spans_[size_t(begin)].first, spans_[size_t(end) - 1].second};
  }

  /// The characters [begin, end) as a text of their own.
  NormalizedText part(int32_t begin, int32_t end) const {
    return {chars_.substr(size_t(begin), size_t(end - begin)),
            std::vector<Span>(spans_.begin() + begin, spans_.begin() + end), origin_};
  }

  /// Replaces everything by `changes`; `removed` old characters at the very start are dropped
  /// first.
  void transform(const std::vector<Change>& changes, size_t removed = 0);
  void normalize(Form form);
  void lowercase();
  void strip(bool left, bool right);
  void prepend(std::u32string_view text);
  /// Replaces the ranges `matches` (ordered, not overlapping) by `content`, which takes the span of
  /// each range's end.
  void replace(const std::vector<Span>& matches, std::u32string_view content);

  template <class Keep>
  void filter(Keep keep) {
    std::vector<Change> changes;
    changes.reserve(chars_.size());
    size_t removed = 0;
    for (const char32_t c : chars_) {
      if (keep(c)) {
        changes.emplace_back(c, 0);
      } else if (changes.empty()) {
        ++removed;
      } else {
        --changes.back().second;
      }
    }
    transform(changes, removed);
  }
  template <class Map>
  void map(Map map) {
    for (char32_t& c : chars_) c = map(c);
  }

 private:
  std::u32string chars_;
  std::vector<Span> spans_;  // as long as chars_
  int32_t origin_;
};

}  // namespace attune
