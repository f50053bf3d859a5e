#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "data/reader.h"

namespace attune {

std::vector<std::string_view> conll_columns(std::string_view line, bool tabs) {
  std::vector<std::string_view> columns;
  size_t at = 0;
  for (;;) {
    if (!tabs) at = std::min(line.find_first_not_of(' ', at), line.size());
    if (!tabs && at >= line.size()) return columns;
    const size_t end = std::min(line.find(tabs ? '\t' : ' ', at), line.size());
    columns.push_back(line.substr(at, end - at));
    if (end >= line.size()) return columns;
    at = end + 1;
  }
}

bool entity_tag(std::string_view tag) {
  if (tag == "O") return true;
  return tag.size() > 2 && tag[1] == '-' &&
         std::string_view("BIESLU").find(tag[0]) != std::string_view::npos;
}

void iob1_to_iob2(std::vector<std::string>& tags) {
  std::string previous = "O";  // as it was in IOB1
  for (std::string& tag : tags) {
    const std::string original = tag;
    const bool inside = starts_with(tag, "I-");
    const bool goes_on =
        previous.size() > 2 && previous[1] == '-' &&
        std::string_view(previous).substr(2) == std::string_view(tag).substr(inside ? 2 : 0);
    if (inside && !goes_on) tag[0] = 'B';
    previous = original;
  }
}

namespace {

constexpr size_t kUniversalColumns =
    10;  // CoNLL-U: ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC

bool document_mark(std::string_view line) {
  return starts_with(line, "-DOCSTART-");
}

/// Which of the two ways of writing B- the tags follow: counts of entity starts written I-, and of
/// B- after something else than the same type, which IOB1 never writes.
struct StartCounts {
  int64_t inside = 0, begin = 0, other = 0;

  void see(std::string_view previous, std::string_view tag) {
    if (tag == "O") return;
    if (!entity_tag(tag) || (tag[0] != 'B' && tag[0] != 'I')) {
      ++other;
      return;
    }
    const bool same =
        entity_tag(previous) && previous != "O" && previous.substr(2) == tag.substr(2);
    if (!same) ++(tag[0] == 'I' ? inside : begin);
  }
  bool iob1() const { return inside > 0 && begin == 0 && other == 0; }
};

class ConllReader : public Reader {
 public:
  explicit ConllReader(const Source& source) : source_(source) {
    const std::string_view text = source.text();
    for (size_t at = 0; at < text.size();) {
      const Line line = line_at(text, at);
      at = line.next;
      if (blank(line.text) || document_mark(line.text) || line.text[0] == '#') continue;
      tabs_ = line.text.find('\t') != std::string_view::npos;
      columns_ = conll_columns(line.text, tabs_).size();
      universal_ = tabs_ && columns_ == kUniversalColumns;
      return;
    }
  }

  void index(RowIndex& rows) override {
    const std::string_view text = source_.text();
    StartCounts starts;
    size_t begin = 0, end = 0;
    int64_t line = 0, first_line = 0;
    std::string_view previous = "O";
    // All lines are seen, whatever the limit: the scheme of the tags is a property of the whole
    // file.
    for (size_t at = 0; at < text.size();) {
      const Line found = line_at(text, at);
      ++line;
      if (blank(found.text) || document_mark(found.text)) {
        if (first_line > 0 && !rows.full()) rows.add(begin, end - begin, first_line);
        first_line = 0;
      } else if (!comment(found.text, first_line == 0)) {
        if (first_line == 0) {
          begin = at;
          first_line = line;
          previous = "O";
        }
        end = at + found.text.size();
        const std::string_view tag = last_column(found.text);
        starts.see(previous, tag);
        previous = tag;
      }
      at = found.next;
    }
    if (first_line > 0 && !rows.full()) rows.add(begin, end - begin, first_line);
    convert_ = !universal_ && starts.iob1();
    if (convert_) log_info("{}: tags are IOB1; converted to IOB2", source_.name());
  }

  Json parse(std::string_view text, int64_t line) const override {
    std::vector<std::string> tokens, tags;
    for (size_t at = 0; at < text.size(); ++line) {
      const Line found = line_at(text, at);
      at = found.next;
      const std::vector<std::string_view> columns = conll_columns(found.text, tabs_);
      check_columns(columns, line);
      if (universal_) {
        // 4-5 is a contraction of words 4 and 5, and 8.1 a word that is not in the text.
        if (columns[0].find_first_of("-.") != std::string_view::npos) continue;
        tokens.emplace_back(columns[1]);
        tags.emplace_back(columns[3]);
      } else {
        tokens.emplace_back(columns.front());
        tags.emplace_back(columns.back());
      }
    }
    if (convert_) iob1_to_iob2(tags);
    return {{"tokens", tokens}, {"tags", tags}};
  }

 private:
  std::string_view last_column(std::string_view line) const {
    return line.substr(line.find_last_of(tabs_ ? "\t" : " ") + 1);
  }

  /// Comments stand before a sentence. A hash sign may also be a token: it is one when the line has
  /// the file's columns and ends in an entity tag.
  bool comment(std::string_view line, bool before_sentence) const {
    if (!before_sentence || line[0] != '#') return false;
    const std::vector<std::string_view> columns = conll_columns(line, tabs_);
    if (columns.size() != columns_) return true;
    return !tabs_ && !entity_tag(columns.back());
  }

  void check_columns(const std::vector<std::string_view>& columns, int64_t line) const {
    if (columns.size() != columns_ || columns_ < 2)
      fail(ErrorCode::BadInput,
           "{}:{}: {} columns, expected {} separated by {} (token first, tag last)", source_.name(),
           line, columns.size(), std::max<size_t>(columns_, 2), tabs_ ? "tabs" : "spaces");
    if (columns.front().empty() || columns.back().empty())
      fail(ErrorCode::BadInput, "{}:{}: the {} is empty", source_.name(), line,
           columns.front().empty() ? "token" : "tag");
  }

  const Source& source_;
  bool tabs_ = false, universal_ = false, convert_ = false;
  size_t columns_ = 0;
};

}  // namespace

std::unique_ptr<Reader> conll_reader(const Source& source) {
  return std::make_unique<ConllReader>(source);
}

}  // namespace attune
