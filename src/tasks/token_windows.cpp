#include "tasks/token_windows.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"
#include "text/unicode.h"

namespace attune {

/// The specials that the tokenizer puts before and behind a text. Not in an anonymous namespace: a
/// class below holds one, and these sources may be compiled as parts of another.
struct TokenEnds {
  std::vector<int32_t> before, behind;
};

namespace {

constexpr size_t kPart = size_t{1} << 20;  // bytes tokenised at once

/// Length of the UTF-8 sequence that starts with this byte, in valid text.
size_t sequence_length(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

char32_t character_at(std::string_view text, size_t at) {
  const unsigned char first = static_cast<unsigned char>(text[at]);
  const size_t length = sequence_length(first);
  char32_t c = length == 1 ? first : first & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i)
    c = (c << 6) | (static_cast<unsigned char>(text[at + i]) & 63);
  return c;
}

TokenEnds ends_of(const Tokenizer& tokenizer) {
  const Encoding encoding = tokenizer.encode("a");
  TokenEnds ends;
  size_t i = 0;
  while (i < encoding.ids.size() && encoding.special_mask[i] != 0)
    ends.before.push_back(encoding.ids[i++]);
  while (i < encoding.ids.size() && encoding.special_mask[i] == 0) ++i;
  while (i < encoding.ids.size()) ends.behind.push_back(encoding.ids[i++]);
  return ends;
}

}  // namespace

/// Takes the text of documents bit by bit and cuts their tokens.
class TokenWindows::Builder {
 public:
  Builder(TokenWindows& windows, const Tokenizer& tokenizer, int64_t length)
      : windows_(windows), tokenizer_(tokenizer), length_(length), ends_(ends_of(tokenizer)) {}

  void begin(int64_t row) {
    current_ = {};
    current_.begin = count_;
    current_.row = row_ = row;
    after_white_ = true;
    open_ = true;
    for (const int32_t id : ends_.before) push(id);
  }
  /// `lines`: the text's line ends are ends of rows.
  void add(std::string_view text, bool lines) {
    lines_ = lines;
    while (!text.empty()) {
      const size_t part = part_of(text);
      tokenise(text.substr(0, part));
      text.remove_prefix(part);
    }
  }
  void end() {
    if (!open_) return;
    for (const int32_t id : ends_.behind) push(id);
    // What no token covers, such as white space at the end, is the last one's.
    take_counts();
    if (current_.count > 1) windows_.windows_.push_back(current_);
    ++windows_.documents_;
    open_ = false;
  }

 private:
  /// All of a text, or if it is long as much as ends at a line end.
  static size_t part_of(std::string_view text) {
    if (text.size() <= kPart) return text.size();
    size_t at = text.rfind('\n', kPart);
    if (at == std::string_view::npos) at = text.find('\n', kPart);
    return at == std::string_view::npos ? text.size() : at + 1;
  }

  void tokenise(std::string_view text) {
    EncodeOptions plain;
    plain.add_special_tokens = false;
    const Encoding encoding = tokenizer_.encode(text, plain);
    size_t at = 0;
    int64_t character = 0;
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      for (; character < encoding.offsets[i].second && at < text.size(); ++character)
        at = count(text, at);
      push(encoding.ids[i]);
    }
    while (at < text.size()) at = count(text, at);
  }

  /// Counts the character at `at`; returns where the next one begins.
  size_t count(std::string_view text, size_t at) {
    const size_t next = at + sequence_length(static_cast<unsigned char>(text[at]));
    const bool white = unicode::is_white(character_at(text, at));
    bytes_ += static_cast<int64_t>(next - at);
    words_ += !white && after_white_ ? 1 : 0;
    after_white_ = white;
    row_ += lines_ && text[at] == '\n' ? 1 : 0;
    return next;
  }

  /// What was counted since the last token belongs to the window, unless it is not predicted.
  void take_counts() {
    if (current_.count > 1) {
      current_.bytes += bytes_;
      current_.words += static_cast<int32_t>(words_);
    }
    bytes_ = words_ = 0;
  }

  void push(int32_t id) {
    windows_.tokens_.add(reinterpret_cast<const char*>(&id), sizeof id);
    ++count_;
    ++current_.count;
    take_counts();
    if (current_.count < length_) return;
    windows_.windows_.push_back(current_);
    current_ = {};
    current_.begin = count_ - 1;
    current_.count = 1;
    current_.row = row_;
  }

  TokenWindows& windows_;
  const Tokenizer& tokenizer_;
  const int64_t length_;
  const TokenEnds ends_;
  Window current_;
  int64_t count_ = 0;  // tokens so far
  int64_t row_ = 0, bytes_ = 0, words_ = 0;
  bool after_white_ = true, open_ = false, lines_ = false;
};

TokenWindows::TokenWindows(const Dataset& data, const Tokenizer& tokenizer, int64_t length,
                           const ColumnOf& column)
    : tokens_(Source::kMemoryLimit) {
  if (length < 2)
    fail(ErrorCode::BadInput,
         "data.max_length: {} tokens a window; predicting the next token takes at least 2", length);
  Builder builder(*this, tokenizer, length);
  std::string lines;  // of one plain text file
  size_t file = 0;
  const auto flush = [&] {
    builder.add(lines, true);
    lines.clear();
  };
  for (int64_t i = 0; i < data.size(); ++i) {
    const Record record = data.at(i);
    const bool goes_on = i > 0 && record.plain && data.file_of(i) == file;
    if (!goes_on) {
      flush();
      builder.end();
      builder.begin(i);
    }
    file = data.file_of(i);
    const std::string text = text_of(record, column(record));
    if (!record.plain) {
      builder.add(text, false);
      continue;
    }
    // A part begins with a line that has text, where no tokenizer joins it to what stands before.
    if (lines.size() > kPart && !text.empty() && !unicode::is_white(character_at(text, 0))) flush();
    lines += text + "\n";
  }
  flush();
  builder.end();
  if (windows_.empty())
    fail(ErrorCode::BadInput,
         "{}: no text has two tokens or more, so there is no next token to predict", data.where(0));
  ids_ = reinterpret_cast<const int32_t*>(tokens_.finish().data());
}

Example TokenWindows::example(int64_t index) const {
  const Window& window = at(index);
  Example example;
  example.id = index;
  example.ids.assign(ids_ + window.begin, ids_ + window.begin + window.count);
  example.labels.assign(example.ids.begin() + 1, example.ids.end());
  example.labels.push_back(kUnlabelled);
  example.words = window.words;
  example.bytes = window.bytes;
  return example;
}

}  // namespace attune
