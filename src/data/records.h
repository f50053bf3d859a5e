#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace attune {

/// One row of a user's data.
struct Record {
  Json value;          // object: column -> value
  std::string file;    // as the user named it; "standard input" for "-"
  int64_t line = 0;    // where the record starts, from 1
  bool typed = true;   // false when the file holds text only (CSV, TSV, CoNLL, plain text): "1" may
                       // be a number
  bool plain = false;  // a line of a plain text file
  /// "data/train.jsonl:17", the start of every message about this record.
  std::string where() const { return file + ":" + std::to_string(line); }
};

enum class Format { Jsonl, JsonArray, Csv, Tsv, Conll, Text };
/// "jsonl", "json", "csv", "tsv", "conll", "text".
const char* format_name(Format format);
/// The format of a name, "auto" included (empty). Errors: BadInput naming `where`.
std::optional<Format> format_from_name(std::string_view name, std::string_view where);

struct ReadOptions {
  std::optional<Format> format;  // empty: from the file's name, else from its first record
  bool header = true;  // CSV and TSV: the first row names the columns; otherwise "0", "1", ...
  bool skip_bad_rows =
      false;          // collect messages in bad_rows() instead of throwing; reads every row at open
  int64_t limit = 0;  // at most so many records over all files; 0: all
};

/// One of the files of a data set.
struct InputFile {
  std::string path;   // "-": standard input
  int64_t limit = 0;  // at most so many of its records; 0: all
  /// Columns read under another name: name -> the file's own column (a path into objects, too).
  std::map<std::string, std::string> renamed = {};
};

/// Users' files as a sequence of records, read through an index of record offsets; copies share one
/// index.
///
/// Formats: JSON lines; a JSON array of objects, or an object with one array of objects inside; CSV
/// and TSV with RFC 4180 quoting (TSV: read without quoting when its quotes do not balance, as
/// GLUE's do not); CoNLL columns
/// ({"tokens", "tags"}: first and last column, IOB1 turned into IOB2; CoNLL-U gives FORM and UPOS);
/// plain text, one
/// {"text"} a line. gzip and zstd of any. Text is UTF-8; a byte-order mark is dropped.
/// Cost: 24 bytes a record, and one pass over the file at open.
/// Errors: BadInput with file, line, column and reason for bad rows, invalid UTF-8 (with its byte
/// offset), empty files and folders; NotFound; Corrupt for damaged compression; Unsupported for
/// Parquet and the like. Thread safe once opened.
class Dataset {
 public:
  /// `path` "-" reads standard input.
  static Dataset open(const std::string& path, const ReadOptions& options = {});
  /// All records of the first file, then of the second, ...; formats may differ.
  static Dataset open(const std::vector<std::string>& paths, const ReadOptions& options = {});
  static Dataset open(const std::vector<InputFile>& files, const ReadOptions& options = {});

  int64_t size() const;
  /// Parses record `index`. Errors: BadInput for a bad row (never after skip_bad_rows), and for one
  /// without a column that is read under another name.
  Record at(int64_t index) const;
  /// Position in the list of files of the one that holds record `index`.
  size_t file_of(int64_t index) const;
  /// "data/train.jsonl:17" of record `index`, without parsing it.
  std::string where(int64_t index) const;
  /// "jsonl", or "jsonl, csv" for a mixture; printed to the user.
  const std::string& format_name() const;
  /// Messages about the rows that were skipped.
  const std::vector<std::string>& bad_rows() const;
  /// SHA-256 over the content after decompression: of the file when there is one, else of the
  /// files' hashes.
  std::string fingerprint() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;  // shared by copies of the dataset; immutable
};

}  // namespace attune
