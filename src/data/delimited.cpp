#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "data/reader.h"

namespace attune {
namespace {

enum class Fault { None, QuoteLeftOpen, TextAfterQuote };

/// One record of separated fields.
struct Fields {
  size_t end = 0;   // of the record's text
  size_t next = 0;  // start of the following record
  size_t count = 0;
  bool quoted = false;
  Fault fault = Fault::None;
  size_t fault_at = 0;
};

/// Steps over one record at `begin`, storing its fields when asked. Reference: RFC 4180; like most
/// writers' output, a quote inside an unquoted field is an ordinary character.
class FieldScanner {
 public:
  FieldScanner(std::string_view text, char separator, bool quoting)
      : text_(text), separator_(separator), quoting_(quoting) {}

  Fields scan(size_t begin, std::vector<std::string>* values) const {
    Fields record;
    size_t at = begin;
    for (;;) {
      std::string value;
      if (quoting_ && at < text_.size() && text_[at] == '"')
        at = quoted_field(at, record, values ? &value : nullptr);
      else
        at = plain_field(at, values ? &value : nullptr);
      ++record.count;
      if (values) values->push_back(std::move(value));
      if (record.fault == Fault::QuoteLeftOpen || at >= text_.size()) break;
      if (text_[at] != separator_) break;
      ++at;
    }
    record.end = at;
    record.next = std::min(at < text_.size() && text_[at] == '\r' ? at + 2 : at + 1, text_.size());
    return record;
  }

 private:
  bool ends_line(size_t at) const {
    return at >= text_.size() || text_[at] == '\n' ||
           (text_[at] == '\r' && (at + 1 == text_.size() || text_[at + 1] == '\n'));
  }

  size_t plain_field(size_t at, std::string* value) const {
    const size_t begin = at;
    while (!ends_line(at) && text_[at] != separator_) ++at;
    if (value) value->append(text_.substr(begin, at - begin));
    return at;
  }

  size_t quoted_field(size_t open, Fields& record, std::string* value) const {
    record.quoted = true;
    size_t at = open + 1;
    for (;;) {
      const size_t quote = text_.find('"', at);
      if (quote == std::string_view::npos) {
        record.fault = Fault::QuoteLeftOpen;
        record.fault_at = open;
        return text_.size();
      }
      if (value) value->append(text_.substr(at, quote - at));
      at = quote + 1;
      if (at >= text_.size() || text_[at] != '"') break;
      if (value) value->push_back('"');
      ++at;
    }
    if (!ends_line(at) && text_[at] != separator_) {
      if (record.fault == Fault::None) record.fault_at = at;
      record.fault = Fault::TextAfterQuote;
      return plain_field(at, value);
    }
    return at;
  }

  std::string_view text_;
  char separator_;
  bool quoting_;
};

class DelimitedReader : public Reader {
 public:
  DelimitedReader(const Source& source, bool tabs, bool header)
      : source_(source), tabs_(tabs), header_(header), separator_(tabs ? '\t' : ',') {
    const std::string_view first = line_at(source.text(), 0).text;
    // Spreadsheets of many countries write semicolons, some write tabs, into files named .csv.
    if (!tabs && first.find(',') == std::string_view::npos) {
      if (first.find(';') != std::string_view::npos) separator_ = ';';
      if (first.find('\t') != std::string_view::npos) separator_ = '\t';
    }
  }

  void index(RowIndex& rows) override {
    if (tabs_ && !quotes_balance()) {
      quoting_ = false;
      log_info("{}: quotes do not balance; read as TSV without quoting", source_.name());
    }
    const std::string_view text = source_.text();
    int64_t line = 1;
    size_t at = skip_blank(0, line);
    if (at >= text.size())
      fail(ErrorCode::BadInput, "{}: the file has only blank lines; expected at least one record",
           source_.name());
    const size_t after_header = read_columns(at, line);
    if (header_) at = skip_blank(after_header, line);
    while (at < text.size() && !rows.full()) at = skip_blank(index_record(at, line, rows), line);
  }

  Json parse(std::string_view text, int64_t line) const override {
    std::vector<std::string> values;
    const Fields record = FieldScanner(text, separator_, quoting_).scan(0, &values);
    if (record.fault != Fault::None)
      throw Error(ErrorCode::BadInput, fault_text(text, line, record));
    // Without names, a longer row still says which field is which: STS-B ends some rows with extra
    // fields.
    if (values.size() < columns_.size() || (header_ && values.size() > columns_.size()))
      fail(ErrorCode::BadInput, "{}:{}: {} fields, expected {} ({})", source_.name(), line,
           values.size(), columns_.size(), join(columns_, ", "));
    Json value = Json::object();
    for (size_t i = 0; i < values.size(); ++i)
      value[header_ ? columns_[i] : std::to_string(i)] = std::move(values[i]);
    return value;
  }

 private:
  size_t skip_blank(size_t at, int64_t& line) const {
    const std::string_view text = source_.text();
    while (at < text.size() && (text[at] == '\n' || text[at] == '\r')) {
      const Line found = line_at(text, at);
      if (!found.text.empty()) break;
      at = found.next;
      ++line;
    }
    return at;
  }

  /// Takes the names (or the number) of columns from the first record; returns where the next one
  /// starts.
  size_t read_columns(size_t at, int64_t& line) {
    const std::string_view text = source_.text();
    std::vector<std::string> names;
    const Fields record = FieldScanner(text, separator_, quoting_).scan(at, &names);
    if (record.fault != Fault::None)
      throw Error(ErrorCode::BadInput, fault_text(text.substr(at), line, record, at));
    // Rows are checked one by one when bad ones are skipped; the names of columns belong to none of
    // them.
    check_utf8(source_, record.end);
    std::set<std::string> seen;
    columns_.clear();
    for (size_t i = 0; i < names.size(); ++i) {
      std::string name = header_ ? std::string(trim(names[i])) : std::string();
      if (name.empty()) name = std::to_string(i);
      if (!seen.insert(name).second)
        fail(ErrorCode::BadInput,
             "{}:{}: the header names column \"{}\" twice; expected unique names", source_.name(),
             line, name);
      columns_.push_back(std::move(name));
    }
    if (header_) line += count_lines(text.substr(at, record.next - at));
    return record.next;
  }

  size_t index_record(size_t at, int64_t& line, RowIndex& rows) const {
    const std::string_view text = source_.text();
    const Line first = line_at(text, at);
    if (!quoting_ || first.text.find('"') == std::string_view::npos) {
      rows.add(at, first.text.size(), line++);
      return first.next;
    }
    const Fields record = FieldScanner(text, separator_, quoting_).scan(at, nullptr);
    if (record.fault != Fault::None) {
      rows.problem(fault_text(text.substr(at), line, record, at));
      // After an open quote the next line is the best place to go on from.
      const size_t next = record.fault == Fault::QuoteLeftOpen ? first.next : record.next;
      line += count_lines(text.substr(at, next - at));
      return next;
    }
    rows.add(at, record.end - at, line);
    line += count_lines(text.substr(at, record.next - at));
    return record.next;
  }

  /// False when reading the whole file with quoting meets a fault, or swallows lines that are whole
  /// by themselves.
  bool quotes_balance() const {
    const std::string_view text = source_.text();
    const FieldScanner scanner(text, separator_, true), plain(text, separator_, false);
    const size_t columns = scanner.scan(0, nullptr).count;
    for (size_t at = 0; at < text.size();) {
      const Line first = line_at(text, at);
      if (first.text.find('"') == std::string_view::npos) {
        at = first.next;
        continue;
      }
      const Fields record = scanner.scan(at, nullptr);
      if (record.fault != Fault::None) return false;
      if (record.quoted && record.count != columns) return false;
      if (record.next != first.next && plain.scan(at, nullptr).count == columns) return false;
      at = record.next;
    }
    return true;
  }

  /// `text` starts at the record, whose fields were found at `base` before it.
  std::string fault_text(std::string_view text, int64_t line, const Fields& record,
                         size_t base = 0) const {
    const std::string_view before = text.substr(0, record.fault_at - base);
    const size_t newline = before.rfind('\n');
    const size_t column =
        newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
    return format(
        "{}:{}:{}: {}", source_.name(), line + count_lines(before), column,
        record.fault == Fault::QuoteLeftOpen
            ? "a quote is opened here and never closed"
            : "text after a closing quote; expected a separator or the end of the line (a "
              "quote inside a quoted field is written twice)");
  }

  const Source& source_;
  bool tabs_, header_;
  char separator_;
  bool quoting_ = true;
  std::vector<std::string> columns_;
};

}  // namespace

std::optional<FieldCount> count_fields(std::string_view text, size_t begin, char separator) {
  const Fields record = FieldScanner(text, separator, true).scan(begin, nullptr);
  if (record.fault != Fault::None) return std::nullopt;
  return FieldCount{record.count, record.next};
}

std::unique_ptr<Reader> delimited_reader(const Source& source, bool tabs, bool header) {
  return std::make_unique<DelimitedReader>(source, tabs, header);
}

}  // namespace attune
