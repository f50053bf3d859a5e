#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "data/records.h"
#include "data/source.h"

namespace attune {

/// Where one record lies: `bytes` from `offset` of its file's text (after the byte-order mark).
struct RowPlace {
  uint64_t offset = 0;
  uint32_t bytes = 0;
  uint32_t file = 0;
  int64_t line = 0;  // from 1
};

/// What a reader fills while it looks for records.
class RowIndex {
 public:
  RowIndex(std::deque<RowPlace>& rows, const Source& source, uint32_t file, int64_t limit,
           std::vector<std::string>* bad)
      : rows_(rows), source_(source), file_(file), limit_(limit), bad_(bad) {}
  /// Errors: BadInput for a record of 4 GiB or more.
  void add(size_t offset, size_t bytes, int64_t line);
  /// Throws BadInput, or collects the message when bad rows are skipped.
  void problem(std::string message);
  bool full() const { return limit_ > 0 && static_cast<int64_t>(rows_.size()) >= limit_; }

 private:
  std::deque<RowPlace>& rows_;
  const Source& source_;
  uint32_t file_;
  int64_t limit_;
  std::vector<std::string>* bad_;
};

/// Finds and parses the records of one file in one format. Immutable after index(), so parse() is
/// thread safe.
class Reader {
 public:
  virtual ~Reader() = default;
  virtual void index(RowIndex& rows) = 0;
  /// `text` is the record's own bytes. Errors: BadInput with file, line and column.
  virtual Json parse(std::string_view text, int64_t line) const = 0;
  virtual bool typed() const { return false; }
};

std::unique_ptr<Reader> json_lines_reader(const Source& source);
std::unique_ptr<Reader> json_array_reader(const Source& source);
/// `tabs`: TSV, whose quotes may not balance.
std::unique_ptr<Reader> delimited_reader(const Source& source, bool tabs, bool header);
/// Fields of the record at `begin`, with RFC 4180 quoting, and where the next record starts; empty
/// for a quote that is never closed and for text after a closing one.
struct FieldCount {
  size_t fields = 0, next = 0;
};
std::optional<FieldCount> count_fields(std::string_view text, size_t begin, char separator);
std::unique_ptr<Reader> conll_reader(const Source& source);
std::unique_ptr<Reader> text_reader(const Source& source);

/// Format from the name's extension (compression suffix ignored), else from the first records.
Format detect_format(const Source& source);
/// True when the first lines are tokens with entity tags in the last column.
bool looks_like_conll(std::string_view text);

/// The line at `begin`, without its end ("\n" or "\r\n"); `next` is where the following one starts.
struct Line {
  std::string_view text;
  size_t next = 0;
};
Line line_at(std::string_view text, size_t begin);
/// True for a line of spaces, tabs and carriage returns.
bool blank(std::string_view line);
/// Number of '\n'.
int64_t count_lines(std::string_view text);
/// Columns of a CoNLL line: split at tabs, or at runs of spaces.
std::vector<std::string_view> conll_columns(std::string_view line, bool tabs);
/// True for O, and for B-X, I-X, E-X, S-X, L-X, U-X.
bool entity_tag(std::string_view tag);
/// Turns IOB1 tags into IOB2 in place.
void iob1_to_iob2(std::vector<std::string>& tags);
/// Parses JSON; errors name file, line and column, given where the text starts. Errors: BadInput.
Json parse_json_row(std::string_view text, const std::string& name, int64_t line);
/// Checks that all bytes up to `end` are UTF-8. Errors: BadInput with file, line and byte offset.
void check_utf8(const Source& source, size_t end);
/// Byte offset of the first invalid sequence, as base/text.h, with a fast way over ASCII.
std::optional<size_t> first_invalid_utf8(std::string_view text);

}  // namespace attune
