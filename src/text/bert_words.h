#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/normalizer.h"
#include "text/unicode.h"

namespace attune {

/// A normalised word: UTF-8 bytes, and where they come from. spans == null: byte i is code point
/// first + i.
struct BertWord {
  std::string_view text;
  int32_t first;
  const std::pair<int32_t, int32_t>* spans;  // one for each byte
};

/// BertNormalizer and BertPreTokenizer in one pass over UTF-8 text: same words, same origins, but
/// characters that cannot influence each other (nearly all) are mapped one by one from a table.
/// Runs with marks that may have to be reordered go through BertNormalizer itself. Thread-safe:
/// pages of the table are made on first use and published atomically.
class BertWords {
 public:
  explicit BertWords(BertOptions options);
  ~BertWords();
  BertWords(const BertWords&) = delete;
  BertWords& operator=(const BertWords&) = delete;

  /// Calls emit(const BertWord&) for every word of valid UTF-8 text whose first code point has
  /// number `origin`.
  template <class Emit>
  void run(std::string_view text, int32_t origin, Emit emit) const;

 private:
  enum Kind : uint8_t { kText, kSpace, kPunctuation, kCjk, kDrop, kSlow };
  struct Rule {
    Kind kind;
    uint8_t size;
    char bytes[14];
  };
  using Page = std::array<Rule, 256>;
  /// The word being collected.
  struct Word {
    std::vector<char> bytes;
    std::vector<std::pair<int32_t, int32_t>> spans;  // only when !plain
    size_t size = 0;
    int32_t first = 0;
    bool plain = true;

    void begin_append(int32_t at);
    void append(const char* data, size_t count, std::pair<int32_t, int32_t> span);
    void clear() { size = 0, plain = true, spans.clear(); }
    BertWord view() const { return {{bytes.data(), size}, first, plain ? nullptr : spans.data()}; }
  };

  /// What the pre-tokenizer does with an already normalised character.
  static Rule plain_rule(char32_t c);
  Rule make_rule(char32_t c) const;
  const Rule& rule(char32_t c, Rule& scratch) const;
  const Page& make_page(size_t index) const;
  /// Length in bytes of the non-ASCII run at `text`; `slow`: its characters may influence each
  /// other.
  size_t scan(std::string_view text, bool& slow) const;
  template <class Emit>
  void flush(Word& word, Emit& emit) const {
    if (word.size > 0) emit(word.view());
    word.clear();
  }
  template <class Emit>
  void place(Word& word, const Rule& rule, std::pair<int32_t, int32_t> span, Emit& emit) const;
  template <class Emit>
  void run_slow(std::string_view text, int32_t& at, Word& word, Emit& emit) const;
  void append_ascii(Word& word, const char*& p, const char* end, int32_t& at) const;

  BertNormalizer normalizer_;
  std::array<Kind, 256> ascii_kind_;
  std::array<char, 256> ascii_char_;
  mutable std::array<std::atomic<Page*>, 512> pages_;  // code points below 0x20000
};

template <class Emit>
void BertWords::place(Word& word, const Rule& rule, std::pair<int32_t, int32_t> span,
                      Emit& emit) const {
  switch (rule.kind) {
    case kText:
      word.append(rule.bytes, rule.size, span);
      break;
    case kSpace:
      flush(word, emit);
      break;
    case kPunctuation:
    case kCjk:
      flush(word, emit);
      word.append(rule.bytes, rule.size, span);
      flush(word, emit);
      break;
    case kDrop:
    case kSlow:
      break;
  }
}

template <class Emit>
void BertWords::run_slow(std::string_view text, int32_t& at, Word& word, Emit& emit) const {
  NormalizedText normalized(unicode::decode(text), at);
  at += normalized.size();
  normalizer_.apply(normalized);
  for (int32_t i = 0; i < normalized.size(); ++i) {
    place(word, plain_rule(normalized.chars()[size_t(i)]), normalized.span(i, i + 1), emit);
  }
}

template <class Emit>
void BertWords::run(std::string_view text, int32_t origin, Emit emit) const {
  const char* p = text.data();
  const char* const end = p + text.size();
  int32_t at = origin;
  Word word;
  word.bytes.resize(text.size() + 16);
  while (p < end) {
    const uint8_t c = uint8_t(*p);
    if (c >= 0x80) {
      bool slow = false;
      const std::string_view part(p, scan({p, size_t(end - p)}, slow));
      p += part.size();
      if (slow) {
        run_slow(part, at, word, emit);
        continue;
      }
      Rule scratch;
      for (const char* q = part.data(); q < p; ++at) {
        place(word, rule(unicode::next(q), scratch), {at, at + 1}, emit);
      }
    } else if (ascii_kind_[c] == kText) {
      append_ascii(word, p, end, at);
    } else {
      if (ascii_kind_[c] != kDrop) flush(word, emit);
      if (ascii_kind_[c] == kPunctuation) {
        word.append(p, 1, {at, at + 1});
        flush(word, emit);
      }
      ++p, ++at;
    }
  }
  flush(word, emit);
}

}  // namespace attune
