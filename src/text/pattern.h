#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/json_view.h"

namespace attune {

/// What to look for in text: a literal string or a regular expression (PCRE2, compiled to machine
/// code where it can be). Expressions are written for Oniguruma and mean what they mean there, see
/// pattern_syntax.h.
class Pattern {
 public:
  using Range = std::pair<int32_t, int32_t>;
  /// Reads {"String": s} or {"Regex": s}. Throws Corrupt, and Unsupported for an expression PCRE2
  /// refuses or that means something else there.
  static Pattern from_json(const JsonView& json);
  static Pattern literal(std::string_view text);
  /// `where` leads the errors.
  static Pattern regex(std::string_view text, const std::string& where);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  /// The buffers of a search, for many texts after one another; for one thread at a time.
  class Matcher;
  /// All matches in order, not overlapping, as ranges of code points of `text`. `text` stands
  /// alone: anchors and look-behind see nothing before it. Throws BadInput when matching exceeds
  /// PCRE2's limits.
  std::vector<Range> find(std::u32string_view text) const;

 private:
  struct Code;
  Pattern();
  std::u32string literal_;
  std::string bytes_;           // literal_ in UTF-8
  std::unique_ptr<Code> code_;  // null: literal
};

class Pattern::Matcher {
 public:
  /// `pattern` must outlive this.
  explicit Matcher(const Pattern& pattern);
  ~Matcher();
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  /// Appends the matches in `text` as ranges of code points.
  void find(std::u32string_view text, std::vector<Range>& out);
  /// Appends the matches in UTF-8 as ranges of bytes. Throws as Pattern::find.
  void find_bytes(std::string_view text, std::vector<Range>& out);

 private:
  struct Data;
  bool next(std::string_view text, size_t at, Range& match);
  const Pattern& pattern_;
  std::unique_ptr<Data> data_;
  std::string bytes_;
  std::vector<int32_t> index_;
  std::vector<Range> found_;
};

}  // namespace attune
