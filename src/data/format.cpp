#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/text.h"
#include "data/reader.h"

namespace attune {
namespace {

struct FormatEntry {
  Format format;
  const char* name;
  std::vector<std::string> extensions;
};

const std::vector<FormatEntry>& formats() {
  static const std::vector<FormatEntry> kFormats = {
      {Format::Jsonl, "jsonl", {".jsonl", ".ndjson"}},
      {Format::JsonArray, "json", {".json"}},
      {Format::Csv, "csv", {".csv"}},
      {Format::Tsv, "tsv", {".tsv", ".tab"}},
      {Format::Conll, "conll", {".conll", ".conllu", ".iob", ".iob2", ".bio"}},
      {Format::Text, "text", {".txt", ".text"}}};
  return kFormats;
}

/// Format of the extension; empty for an unknown one, and for .json and .txt, whose content
/// decides.
std::optional<Format> format_of_extension(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* suffix : {".gz", ".zst", ".zstd"})
    if (ends_with(name, suffix)) name.resize(name.size() - std::string_view(suffix).size());
  for (const FormatEntry& entry : formats())
    for (const std::string& extension : entry.extensions)
      if (ends_with(name, extension)) return entry.format;
  return std::nullopt;
}

bool whole_object(std::string_view line) {
  const Json value = Json::parse(line.begin(), line.end(), nullptr, false);
  return value.is_object();
}

/// JSON lines when the first line is a whole object; a lone object in a .json file is a container
/// of records.
Format json_format(std::string_view text, bool named_json) {
  size_t at = 0;
  Line first = line_at(text, at);
  while (blank(first.text) && first.next < text.size()) first = line_at(text, first.next);
  if (trim(first.text).front() == '[') return Format::JsonArray;
  const bool alone = blank(text.substr(first.next)) ||
                     text.find_first_not_of(" \t\r\n", first.next) == std::string_view::npos;
  if (named_json && alone) return Format::JsonArray;
  return whole_object(first.text) ? Format::Jsonl : Format::JsonArray;
}

/// True when the first lines (up to 20) all have the same number of separators, at least one: TSV
/// whose quotes mean nothing.
bool even_columns(std::string_view text, char separator) {
  int64_t expected = -1, lines = 0;
  for (size_t at = 0; at < text.size() && lines < 20;) {
    const Line line = line_at(text, at);
    at = line.next;
    if (blank(line.text)) continue;
    const int64_t found = std::count(line.text.begin(), line.text.end(), separator);
    if (expected < 0) expected = found;
    if (found != expected) return false;
    ++lines;
  }
  return expected > 0;
}

/// True when the first records (up to 20) all have the same number of fields, at least two, by the
/// rules of CSV: a separator in quotes separates nothing.
bool even_fields(std::string_view text, char separator) {
  size_t expected = 0;
  int64_t records = 0;
  for (size_t at = 0; at < text.size() && records < 20;) {
    if (const Line line = line_at(text, at); blank(line.text)) {
      at = line.next;
      continue;
    }
    const std::optional<FieldCount> record = count_fields(text, at, separator);
    if (!record || (expected > 0 && record->fields != expected)) return false;
    expected = record->fields;
    at = record->next;
    ++records;
  }
  return expected > 1;
}

/// True when the first line reads like names of columns: short words without end punctuation.
bool names_columns(std::string_view text) {
  for (const std::string& name : split(line_at(text, 0).text, ',')) {
    const std::string_view word = trim(name);
    if (word.empty() || word.size() > 40 || word.find(' ') != std::string_view::npos) return false;
  }
  return true;
}

}  // namespace

const char* format_name(Format format) {
  for (const FormatEntry& entry : formats())
    if (entry.format == format) return entry.name;
  return "unknown";
}

std::optional<Format> format_from_name(std::string_view name, std::string_view where) {
  if (name == "auto") return std::nullopt;
  std::vector<std::string> known = {"auto"};
  for (const FormatEntry& entry : formats()) {
    if (name == entry.name) return entry.format;
    known.push_back(entry.name);
  }
  fail(ErrorCode::BadInput, "{}: unknown data format \"{}\"; expected one of {}", where, name,
       join(known, ", "));
}

bool looks_like_conll(std::string_view text) {
  int64_t lines = 0;
  size_t expected = 0;
  bool tabs = false;
  for (size_t at = 0; at < text.size() && lines < 50;) {
    const Line line = line_at(text, at);
    at = line.next;
    if (blank(line.text) || starts_with(line.text, "-DOCSTART-") || line.text[0] == '#') continue;
    if (lines++ == 0) tabs = line.text.find('\t') != std::string_view::npos;
    const std::vector<std::string_view> columns = conll_columns(line.text, tabs);
    if (expected == 0) expected = columns.size();
    if (columns.size() < 2 || columns.size() != expected || !entity_tag(columns.back()))
      return false;
  }
  return lines > 1;
}

Format detect_format(const Source& source) {
  const std::optional<Format> named = format_of_extension(source.name());
  const std::string_view text = source.text();
  if (named && *named != Format::JsonArray && *named != Format::Text) return *named;
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (named == Format::JsonArray)
    return first == std::string_view::npos ? Format::JsonArray
                                           : json_format(text.substr(first), true);
  // CoNLL data is often named .txt; plain text never ends every line in an entity tag.
  if (looks_like_conll(text)) return Format::Conll;
  if (named == Format::Text || first == std::string_view::npos) return Format::Text;
  if (text[first] == '{' || text[first] == '[') return json_format(text.substr(first), false);
  if (even_columns(text, '\t') || even_fields(text, '\t')) return Format::Tsv;
  // A quote that is out of place is CSV's to report.
  if ((even_fields(text, ',') || even_columns(text, ',')) && names_columns(text))
    return Format::Csv;
  return Format::Text;
}

}  // namespace attune
