#include "data/records.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"
#include "data/columns.h"
#include "data/reader.h"

namespace attune {

/// Not in the unnamed namespace: it is part of a type with linkage.
struct OpenFile {
  std::unique_ptr<Source> source;
  std::unique_ptr<Reader> reader;
  std::map<std::string, std::string> renamed;
  bool plain = false;
};

namespace {

std::unique_ptr<Reader> make_reader(Format format, const Source& source,
                                    const ReadOptions& options) {
  switch (format) {
    case Format::Jsonl:
      return json_lines_reader(source);
    case Format::JsonArray:
      return json_array_reader(source);
    case Format::Csv:
      return delimited_reader(source, false, options.header);
    case Format::Tsv:
      return delimited_reader(source, true, options.header);
    case Format::Conll:
      return conll_reader(source);
    case Format::Text:
      return text_reader(source);
  }
  fail(ErrorCode::Internal, "no reader for a data format");
}

std::string_view row_text(const OpenFile& file, const RowPlace& row) {
  const std::string_view text = file.source->text().substr(row.offset, row.bytes);
  file.source->seen(text);
  return text;
}

/// Moves rows that cannot be read, from `first` on, into messages.
void drop_bad_rows(const OpenFile& file, size_t first, int64_t limit, std::deque<RowPlace>& rows,
                   std::vector<std::string>& bad) {
  size_t kept = first;
  for (size_t i = first; i < rows.size(); ++i) {
    if (limit > 0 && static_cast<int64_t>(kept) >= limit) break;
    const std::string_view text = row_text(file, rows[i]);
    if (const std::optional<size_t> at = first_invalid_utf8(text)) {
      bad.push_back(format("{}:{}: invalid UTF-8 at byte offset {}", file.source->name(),
                           rows[i].line, rows[i].offset + *at + file.source->mark_bytes()));
      continue;
    }
    try {
      file.reader->parse(text, rows[i].line);
      rows[kept++] = rows[i];
    } catch (const Error& error) {
      bad.emplace_back(error.what());
    }
  }
  rows.resize(kept);
}

}  // namespace

struct Dataset::State {
  std::vector<OpenFile> files;
  std::deque<RowPlace> rows;
  std::string format_name;
  std::vector<std::string> bad_rows;
  mutable std::once_flag hashed;
  mutable std::string fingerprint;

  const RowPlace& row(int64_t index) const {
    ATTUNE_ASSERT(index >= 0 && index < static_cast<int64_t>(rows.size()));
    return rows[static_cast<size_t>(index)];
  }
  void add_file(const InputFile& input, const ReadOptions& options);
};

void Dataset::State::add_file(const InputFile& input, const ReadOptions& options) {
  const std::string& path = input.path;
  OpenFile file;
  file.renamed = input.renamed;
  file.source = std::make_unique<Source>(path);
  const Format format = options.format ? *options.format : detect_format(*file.source);
  file.reader = make_reader(format, *file.source, options);
  file.plain = format == Format::Text;
  const size_t first = rows.size(), bad_before = bad_rows.size();
  const bool skip = options.skip_bad_rows;
  int64_t limit = options.limit;
  if (input.limit > 0) {
    const int64_t end = static_cast<int64_t>(first) + input.limit;
    limit = limit > 0 ? std::min(limit, end) : end;
  }
  // With skipping, how many rows are needed is known only after the bad ones have gone.
  RowIndex index(rows, *file.source, static_cast<uint32_t>(files.size()), skip ? 0 : limit,
                 skip ? &bad_rows : nullptr);
  file.reader->index(index);
  if (skip)
    drop_bad_rows(file, first, limit, rows, bad_rows);
  else if (rows.size() > first)
    check_utf8(*file.source, rows.back().offset + rows.back().bytes);
  if (rows.size() == first)
    fail(ErrorCode::BadInput, "{}: no records found reading it as {}{}", path,
         attune::format_name(format),
         bad_rows.size() > bad_before
             ? attune::format("; all {} rows are bad, the first: {}", bad_rows.size() - bad_before,
                              bad_rows[bad_before])
             : std::string("; expected at least one"));
  const std::vector<std::string> names = split(format_name, ',');
  const std::string name = attune::format_name(format);
  const bool known = std::any_of(names.begin(), names.end(),
                                 [&](const std::string& other) { return trim(other) == name; });
  if (!known) format_name += (format_name.empty() ? "" : ", ") + name;
  files.push_back(std::move(file));
}

Dataset Dataset::open(const std::string& path, const ReadOptions& options) {
  return open(std::vector<std::string>{path}, options);
}

Dataset Dataset::open(const std::vector<std::string>& paths, const ReadOptions& options) {
  std::vector<InputFile> files;
  for (const std::string& path : paths) files.push_back({path});
  return open(files, options);
}

Dataset Dataset::open(const std::vector<InputFile>& files, const ReadOptions& options) {
  if (files.empty())
    fail(ErrorCode::BadInput, "reading data: no file is named; expected at least one");
  std::shared_ptr<State> state = std::make_shared<State>();
  for (const InputFile& file : files) {
    if (options.limit > 0 && static_cast<int64_t>(state->rows.size()) >= options.limit) break;
    state->add_file(file, options);
  }
  Dataset dataset;
  dataset.state_ = std::move(state);
  return dataset;
}

int64_t Dataset::size() const {
  return static_cast<int64_t>(state_->rows.size());
}

Record Dataset::at(int64_t index) const {
  const RowPlace& row = state_->row(index);
  const OpenFile& file = state_->files[row.file];
  Record record{file.reader->parse(row_text(file, row), row.line), file.source->name(), row.line,
                file.reader->typed(), file.plain};
  if (file.renamed.empty()) return record;
  Json value = record.value;
  for (const std::pair<const std::string, std::string>& entry : file.renamed)
    value[entry.first] = column(record, entry.second);
  record.value = std::move(value);
  return record;
}

size_t Dataset::file_of(int64_t index) const {
  return state_->row(index).file;
}

std::string Dataset::where(int64_t index) const {
  const RowPlace& row = state_->row(index);
  return state_->files[row.file].source->name() + ":" + std::to_string(row.line);
}

const std::string& Dataset::format_name() const {
  return state_->format_name;
}

const std::vector<std::string>& Dataset::bad_rows() const {
  return state_->bad_rows;
}

std::string Dataset::fingerprint() const {
  std::call_once(state_->hashed, [this] {
    const std::vector<OpenFile>& files = state_->files;
    std::string hashes;
    for (const OpenFile& file : files) {
      Sha256 hash;
      file.source->in_pieces([&](std::string_view piece) { hash.add(piece); });
      hashes += hash.hex();
    }
    state_->fingerprint = files.size() == 1 ? hashes : sha256_hex(hashes);
  });
  return state_->fingerprint;
}

}  // namespace attune
