#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "data/reader.h"

namespace attune {

void RowIndex::add(size_t offset, size_t bytes, int64_t line) {
  if (bytes > std::numeric_limits<uint32_t>::max())
    fail(
        ErrorCode::BadInput,
        "{}:{}: this record has {}; records must be smaller than 4 GiB (is a quote or bracket left "
        "open?)",
        source_.name(), line, human_bytes(static_cast<double>(bytes)));
  source_.seen(source_.text().substr(offset, bytes));
  rows_.push_back({offset, static_cast<uint32_t>(bytes), file_, line});
}

void RowIndex::problem(std::string message) {
  if (!bad_) throw Error(ErrorCode::BadInput, message);
  bad_->push_back(std::move(message));
}

Line line_at(std::string_view text, size_t begin) {
  const char* start = text.data() + begin;
  const void* found = std::memchr(start, '\n', text.size() - begin);
  size_t length =
      found ? static_cast<size_t>(static_cast<const char*>(found) - start) : text.size() - begin;
  const size_t next = found ? begin + length + 1 : text.size();
  if (length > 0 && start[length - 1] == '\r') --length;
  return {{start, length}, next};
}

bool blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

int64_t count_lines(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n');
}

std::optional<size_t> first_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word = 0;
    while (at + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if (word & 0x8080808080808080ull) break;
      at += sizeof word;
    }
    // A stretch ends at an ASCII byte, which never lies inside a sequence.
    size_t end = std::min(text.size(), at + 256);
    while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80) ++end;
    if (const std::optional<size_t> bad = invalid_utf8(text.substr(at, end - at))) return at + *bad;
    at = end;
  }
  return std::nullopt;
}

namespace {
/// The same a piece at a time, so that a large file need not be in memory whole.
std::optional<size_t> first_invalid_in_pieces(const Source& source, std::string_view text) {
  constexpr size_t kPiece = size_t{4} << 20;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.size(), at + kPiece);
    while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80) ++end;
    const std::string_view piece = text.substr(at, end - at);
    if (const std::optional<size_t> bad = first_invalid_utf8(piece)) return at + *bad;
    source.seen(piece);
    at = end;
  }
  return std::nullopt;
}
}  // namespace

void check_utf8(const Source& source, size_t end) {
  const std::string_view text = source.text().substr(0, end);
  const std::optional<size_t> bad = first_invalid_in_pieces(source, text);
  if (!bad) return;
  fail(
      ErrorCode::BadInput,
      "{}:{}: invalid UTF-8 at byte offset {}{} (byte 0x{:02X}); expected UTF-8: convert the file, "
      "for example with iconv -f LATIN1 -t UTF-8",
      source.name(), count_lines(text.substr(0, *bad)) + 1, *bad + source.mark_bytes(),
      source.compressed() ? " of the decompressed text" : "",
      static_cast<unsigned>(static_cast<unsigned char>(text[*bad])));
}

namespace {

class TextReader : public Reader {
 public:
  explicit TextReader(const Source& source) : source_(source) {}

  void index(RowIndex& rows) override {
    const std::string_view text = source_.text();
    int64_t line = 1;
    for (size_t at = 0; at < text.size() && !rows.full(); ++line) {
      const Line found = line_at(text, at);
      rows.add(at, found.text.size(), line);
      at = found.next;
    }
  }

  Json parse(std::string_view text, int64_t) const override {
    Json value = Json::object();
    value["text"] = std::string(text);
    return value;
  }

 private:
  const Source& source_;
};

}  // namespace

std::unique_ptr<Reader> text_reader(const Source& source) {
  return std::make_unique<TextReader>(source);
}

}  // namespace attune
