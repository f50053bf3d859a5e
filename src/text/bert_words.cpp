#include "text/bert_words.h"

#include <cstring>

namespace attune {

BertWords::BertWords(BertOptions options) : normalizer_(options) {
  for (std::atomic<Page*>& page : pages_) page.store(nullptr, std::memory_order_relaxed);
  for (int c = 0; c < 256; ++c) {
    ascii_kind_[size_t(c)] = kSlow;
    ascii_char_[size_t(c)] = char(c);
    if (c >= 0x80) continue;
    const Rule rule = make_rule(char32_t(c));
    ascii_kind_[size_t(c)] = rule.kind;
    if (rule.kind == kText) ascii_char_[size_t(c)] = rule.bytes[0];
  }
}

BertWords::~BertWords() {
  for (std::atomic<Page*>& page : pages_) delete page.load(std::memory_order_acquire);
}

BertWords::Rule BertWords::plain_rule(char32_t c) {
  Rule rule{};
  rule.kind = unicode::is_white(c) ? kSpace : unicode::is_punctuation(c) ? kPunctuation : kText;
  rule.size = uint8_t(unicode::encode(c, rule.bytes));
  return rule;
}

BertWords::Rule BertWords::make_rule(char32_t c) const {
  NormalizedText text(std::u32string(1, c));
  normalizer_.apply(text);
  const std::u32string& chars = text.chars();
  Rule rule{};
  rule.kind = kDrop;
  if (chars.empty()) return rule;
  if (chars.size() == 1) rule = plain_rule(chars[0]);
  std::u32string_view content = chars;
  if (chars.size() == 3 && chars[0] == ' ' && chars[2] == ' ') {
    rule.kind = kCjk;
    content = content.substr(1, 1);
  } else if (chars.size() > 1) {
    rule.kind = kText;
  }
  const std::string bytes = unicode::encode(content);
  bool alone = bytes.size() <= sizeof rule.bytes;
  for (const char32_t part : content) {
    // A mark that stays may have to move past its neighbours.
    if (normalizer_.options().strip_accents && unicode::combining_class(part) != 0) alone = false;
    if (chars.size() > 1 && plain_rule(part).kind != kText) alone = false;
  }
  if (!alone) {
    rule.kind = kSlow;
    return rule;
  }
  rule.size = uint8_t(bytes.size());
  std::memcpy(rule.bytes, bytes.data(), bytes.size());
  return rule;
}

const BertWords::Page& BertWords::make_page(size_t index) const {
  std::unique_ptr<Page> page = std::make_unique<Page>();
  for (size_t i = 0; i < page->size(); ++i) {
    const char32_t c = char32_t(index * 256 + i);
    if (c < 0xD800 || c > 0xDFFF) (*page)[i] = make_rule(c);
  }
  Page* expected = nullptr;
  // Another thread may have been faster; its page is the same.
  if (pages_[index].compare_exchange_strong(expected, page.get(), std::memory_order_acq_rel)) {
    return *page.release();
  }
  return *expected;
}

const BertWords::Rule& BertWords::rule(char32_t c, Rule& scratch) const {
  const size_t index = c >> 8;
  if (index < pages_.size()) {
    const Page* page = pages_[index].load(std::memory_order_acquire);
    return (page != nullptr ? *page : make_page(index))[c & 0xFF];
  }
  return scratch = make_rule(c);
}

size_t BertWords::scan(std::string_view text, bool& slow) const {
  const char* p = text.data();
  const char* const end = p + text.size();
  Rule scratch;
  while (p < end && (*p & 0x80) != 0) {
    if (rule(unicode::next(p), scratch).kind == kSlow) slow = true;
  }
  return size_t(p - text.data());
}

void BertWords::Word::begin_append(int32_t at) {
  if (size == 0) {
    first = at;
    return;
  }
  if (!plain || at == first + int32_t(size)) return;
  plain = false;
  for (int32_t i = 0; i < int32_t(size); ++i) spans.emplace_back(first + i, first + i + 1);
}

void BertWords::Word::append(const char* data, size_t count, std::pair<int32_t, int32_t> span) {
  if (bytes.size() < size + count) bytes.resize((size + count) * 2);
  begin_append(span.first);
  if (plain && (count != 1 || span.second != span.first + 1)) {
    plain = false;
    for (int32_t i = 0; i < int32_t(size); ++i) spans.emplace_back(first + i, first + i + 1);
  }
  std::memcpy(bytes.data() + size, data, count);
  if (!plain) spans.insert(spans.end(), count, span);
  size += count;
}

void BertWords::append_ascii(Word& word, const char*& p, const char* end, int32_t& at) const {
  word.begin_append(at);
  // Words that grew under normalisation may leave less room than the input promised.
  const size_t needed = word.size + size_t(end - p);
  if (word.bytes.size() < needed) word.bytes.resize(needed * 2);
  char* out = word.bytes.data() + word.size;
  const char* const start = p;
  do {
    *out++ = ascii_char_[uint8_t(*p++)];
  } while (p < end && ascii_kind_[uint8_t(*p)] == kText);
  const int32_t count = int32_t(p - start);
  if (!word.plain) {
    for (int32_t i = 0; i < count; ++i) word.spans.emplace_back(at + i, at + i + 1);
  }
  word.size += size_t(count);
  at += count;
}

}  // namespace attune
