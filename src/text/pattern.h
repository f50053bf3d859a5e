#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/json_view.h"

namespace attune {

/// What to look for in text: a literal string or a regular expression (PCRE2, Unicode properties
/// on). Differs: characters newer than PCRE2's Unicode tables (14 in version 10.42) have no
/// property in expressions.
class Pattern {
 public:
  using Range = std::pair<int32_t, int32_t>;
  /// Reads {"String": s} or {"Regex": s}. Throws Corrupt, and Unsupported for an expression PCRE2
  /// refuses.
  static Pattern from_json(const JsonView& json);
  static Pattern literal(std::string_view text);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  /// All matches in order, not overlapping, as ranges of code points of `text`. `text` stands
  /// alone: anchors and look-behind see nothing before it. Throws BadInput when matching exceeds
  /// PCRE2's limits.
  std::vector<Range> find(std::u32string_view text) const;

 private:
  struct Code;
  Pattern();
  std::u32string literal_;
  std::unique_ptr<Code> code_;  // null: literal
};

}  // namespace attune
