#include "text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "text/unicode.h"

namespace attune {
namespace {

size_t previous(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (text[at] & 0xC0) == 0x80);
  return at;
}

char32_t char_at(std::string_view text, size_t at) {
  const char* position = text.data() + at;
  return unicode::next(position);
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool word_before = begin > 0 && unicode::is_word(char_at(text, previous(text, begin)));
  const bool word_after = end < text.size() && unicode::is_word(char_at(text, end));
  return !word_before && !word_after;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string text) {
  if (!text.empty()) entries_.push_back({std::move(text), token});
}

void AddedTokenMatcher::finish() {
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    const uint8_t first_a = uint8_t(a.text[0]), first_b = uint8_t(b.text[0]);
    return first_a != first_b ? first_a < first_b : a.text.size() > b.text.size();
  });
  start_.fill(0);
  for (const Entry& entry : entries_) ++start_[uint8_t(entry.text[0]) + 1];
  for (size_t i = 1; i < start_.size(); ++i) start_[i] += start_[i - 1];
  if (!entries_.empty() && entries_.front().text[0] == entries_.back().text[0]) {
    only_first_ = uint8_t(entries_.front().text[0]);
  }
}

size_t AddedTokenMatcher::candidate(std::string_view text, size_t at) const {
  if (only_first_ >= 0) {
    const void* found = std::memchr(text.data() + at, only_first_, text.size() - at);
    return found == nullptr ? text.size() : size_t(static_cast<const char*>(found) - text.data());
  }
  while (at < text.size() && start_[uint8_t(text[at])] == start_[uint8_t(text[at]) + 1]) ++at;
  return at;
}

const AddedTokenMatcher::Entry* AddedTokenMatcher::longest_at(std::string_view text,
                                                              size_t at) const {
  const uint8_t first = uint8_t(text[at]);
  for (uint32_t i = start_[first]; i < start_[first + 1]; ++i) {
    if (text.substr(at).starts_with(entries_[i].text)) return &entries_[i];
  }
  return nullptr;
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text) const {
  std::vector<Match> out;
  if (entries_.empty() || text.empty()) return out;
  size_t taken = 0;
  for (size_t at = candidate(text, 0); at < text.size(); at = candidate(text, at)) {
    const Entry* entry = longest_at(text, at);
    if (entry == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + entry->text.size();
    at = end;
    if (entry->token.single_word && !stands_alone(text, begin, end)) continue;
    while (entry->token.lstrip && begin > taken &&
           unicode::is_white(char_at(text, previous(text, begin)))) {
      begin = previous(text, begin);
    }
    while (entry->token.rstrip && end < text.size() && unicode::is_white(char_at(text, end))) {
      const char* position = text.data() + end;
      unicode::next(position);
      end = size_t(position - text.data());
    }
    // White space taken by the token before may reach into a token that begins with white space.
    begin = std::max(begin, taken);
    if (begin >= end) continue;
    out.push_back({begin, end, entry->token.id});
    taken = end;
  }
  return out;
}

}  // namespace attune
