#include "text/pattern_syntax.h"

#include "base/error.h"
#include "base/text.h"
#include "text/unicode_new.h"

namespace attune {
namespace {

/// Reads an expression from the left and writes PCRE2's.
class Rewriter {
 public:
  Rewriter(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}
  std::string run();

 private:
  void escape();
  void set();
  void group();
  void property(bool negated);
  /// Members of a set, which stand for `text` outside of a set too.
  void members(std::string_view text, bool negated);
  bool posix();
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::Unsupported,
         "{}: cannot use the regular expression \"{}\": {} at byte {} is not supported", where_,
         in_, what, at_);
  }

  std::string_view in_;
  const std::string& where_;
  size_t at_ = 0;
  bool in_set_ = false;
  std::string out_;
};

/// The characters newer than PCRE2's tables of a category ("L", "Nd") as members of a set.
std::string new_members(std::string_view category) {
  std::string out;
  for (const unicode::NewRange& range : unicode::new_ranges()) {
    if (range.category[0] != category[0]) continue;
    if (category.size() > 1 && range.category[1] != category[1]) continue;
    out += format("\\x{{{:X}}}-\\x{{{:X}}}", uint32_t(range.first), uint32_t(range.last));
  }
  return out;
}

/// Alphabetic characters, marks, decimal digits, connectors.
std::string word_members() {
  return "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" + new_members("L") + new_members("M") +
         new_members("Nd");
}

void Rewriter::members(std::string_view text, bool negated) {
  if (in_set_ && negated) refuse("\\W in a set");
  if (in_set_) {
    out_ += text;
  } else {
    out_ += format("[{}{}]", negated ? "^" : "", text);
  }
}

void Rewriter::property(bool negated) {
  // at_: behind \p or \P
  std::string_view name = in_.substr(at_, 1);
  size_t end = at_ + 1;
  if (name == "{") {
    const size_t close = in_.find('}', at_);
    if (close == in_.npos) refuse("a property without end");
    name = in_.substr(at_ + 1, close - at_ - 1);
    end = close + 1;
  }
  if (name.starts_with('^')) {
    name.remove_prefix(1);
    negated = !negated;
  }
  const bool category = name.size() == 1 || name.size() == 2;
  const std::string added = category ? new_members(name) : "";
  const std::string known =
      format("\\{}{{{}}}", negated && (added.empty() || in_set_) ? 'P' : 'p', name);
  at_ = end;
  // Differs: in a set, a negated category has the newest characters of that category too.
  if (added.empty() || (in_set_ && negated)) {
    out_ += known;
  } else {
    members(known + added, negated);
  }
}

void Rewriter::escape() {
  const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
  at_ += c == '\0' ? 1 : 2;
  switch (c) {
    case 's':
    case 'S':
      out_ += c == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      break;
    case 'w':
    case 'W':
      // Outside of sets Oniguruma counts six more of Latin-1: superscripts and fractions.
      members(word_members() + (in_set_ ? "" : "\\xB2\\xB3\\xB9\\xBC-\\xBE"), c == 'W');
      break;
    case 'd':
    case 'D':
      if (c == 'D' && in_set_) {
        out_ += "\\P{Nd}";
      } else {
        members("\\p{Nd}" + new_members("Nd"), c == 'D');
      }
      break;
    case 'h':
    case 'H':
      out_ += c == 'h' ? "\\p{AHex}" : "\\P{AHex}";
      break;
    case 'p':
    case 'P':
      property(c == 'P');
      break;
    default:
      out_ += '\\';
      if (c != '\0') out_ += c;
  }
}

bool Rewriter::posix() {
  const std::pair<std::string_view, std::string> known[] = {
      {"[:space:]", "\\p{White_Space}"},
      {"[:alpha:]", "\\p{Alphabetic}" + new_members("L") + new_members("M")},
      {"[:digit:]", "\\p{Nd}" + new_members("Nd")},
      {"[:punct:]", "\\p{P}\\p{S}" + new_members("P") + new_members("S")},
      {"[:word:]", word_members()},
      {"[:upper:]", "\\p{Uppercase}" + new_members("Lu")},
      {"[:lower:]", "\\p{Lowercase}" + new_members("Ll")},
      {"[:xdigit:]", "\\p{AHex}"}};
  for (const auto& [name, text] : known) {
    if (!in_.substr(at_).starts_with(name)) continue;
    out_ += text;
    at_ += name.size();
    return true;
  }
  return false;
}

/// From the opening to the closing bracket.
void Rewriter::set() {
  in_set_ = true;
  out_ += in_[at_++];
  if (in_.substr(at_).starts_with('^')) out_ += in_[at_++];
  // A bracket that closes at once is a member.
  if (in_.substr(at_).starts_with(']')) out_ += "\\]", ++at_;
  while (at_ < in_.size() && in_[at_] != ']') {
    if (in_[at_] == '\\') {
      escape();
    } else if (in_[at_] == '[') {
      if (!posix()) refuse("a set within a set");
    } else if (in_.substr(at_).starts_with("&&")) {
      refuse("an intersection of sets");
    } else {
      out_ += in_[at_++];
    }
  }
  in_set_ = false;
  if (at_ < in_.size()) out_ += in_[at_++];
}

/// The flags of "(?im-x:" and "(?i)"; other groups stay as they are.
void Rewriter::group() {
  out_ += in_[at_++];
  if (!in_.substr(at_).starts_with('?')) return;
  const size_t end = in_.find_first_not_of("imx-", at_ + 1);
  if (end == in_.npos || (in_[end] != ':' && in_[end] != ')')) return;
  for (; at_ < end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
}

std::string Rewriter::run() {
  while (at_ < in_.size()) {
    switch (in_[at_]) {
      case '\\':
        escape();
        break;
      case '[':
        set();
        break;
      case '(':
        group();
        break;
      default:
        out_ += in_[at_++];
    }
  }
  return std::move(out_);
}

}  // namespace

std::string pcre2_pattern(std::string_view pattern, const std::string& where) {
  return Rewriter(pattern, where).run();
}

}  // namespace attune
