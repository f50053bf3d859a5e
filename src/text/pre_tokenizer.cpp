#include "text/pre_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace attune {
namespace {

using Range = PreTokenizer::Range;

enum class Behavior { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

struct Part {
  Range range;
  bool match;
};

/// Covers the whole piece: matches and what lies between them.
std::vector<Part> cover(const std::vector<Range>& matches, int32_t size) {
  std::vector<Part> out;
  int32_t at = 0;
  for (const Range& match : matches) {
    if (at != match.first) out.push_back({{at, match.first}, false});
    out.push_back({match, true});
    at = match.second;
  }
  if (at != size) out.push_back({{at, size}, false});
  return out;
}

template <class Match>
std::vector<Part> cover_chars(std::u32string_view piece, Match match) {
  std::vector<Range> matches;
  for (int32_t i = 0; i < int32_t(piece.size()); ++i) {
    if (match(piece[size_t(i)])) matches.emplace_back(i, i + 1);
  }
  return cover(matches, int32_t(piece.size()));
}

/// Joins neighbours as the behaviour asks.
void join(const std::vector<Part>& parts, Behavior behavior, std::vector<Range>& out) {
  bool previous = false;
  for (const Part& part : parts) {
    const bool joins =
        behavior == Behavior::Contiguous ? part.match == previous : part.match && !previous;
    if (joins && !out.empty()) {
      out.back() = {std::min(out.back().first, part.range.first),
                    std::max(out.back().second, part.range.second)};
    } else {
      out.push_back(part.range);
    }
    previous = part.match;
  }
}

void split(std::vector<Part> parts, Behavior behavior, std::vector<Range>& out) {
  switch (behavior) {
    case Behavior::Removed:
      for (const Part& part : parts) {
        if (!part.match) out.push_back(part.range);
      }
      break;
    case Behavior::Isolated:
      for (const Part& part : parts) out.push_back(part.range);
      break;
    case Behavior::Contiguous:
    case Behavior::MergedWithPrevious:
      join(parts, behavior, out);
      break;
    case Behavior::MergedWithNext:
      std::reverse(parts.begin(), parts.end());
      join(parts, behavior, out);
      std::reverse(out.begin(), out.end());
      break;
  }
}

Behavior behavior_of(const JsonView& json, Behavior fallback) {
  if (!json.has("behavior")) return fallback;
  const std::string name = json.at("behavior").as_string();
  if (name == "Removed") return Behavior::Removed;
  if (name == "Isolated") return Behavior::Isolated;
  if (name == "MergedWithPrevious") return Behavior::MergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::MergedWithNext;
  if (name == "Contiguous") return Behavior::Contiguous;
  fail(
      ErrorCode::Corrupt,
      "{}: unknown behavior \"{}\"; expected Removed, Isolated, MergedWithPrevious, MergedWithNext "
      "or Contiguous",
      json.where(), name);
}

/// A stage that cuts every range by itself and leaves the text as it is.
class CuttingPreTokenizer : public PreTokenizer {
 public:
  void apply(NormalizedText& text, std::vector<Range>& ranges) const override {
    std::vector<Range> out, parts;
    out.reserve(ranges.size() * 2);
    const std::u32string_view chars = text.chars();
    for (const Range& range : ranges) {
      parts.clear();
      cut(chars.substr(size_t(range.first), size_t(range.second - range.first)), parts);
      for (const Range& part : parts) {
        if (part.first == part.second) continue;
        out.emplace_back(range.first + part.first, range.first + part.second);
      }
    }
    ranges = std::move(out);
  }

 protected:
  /// Ranges are relative to the piece.
  virtual void cut(std::u32string_view piece, std::vector<Range>& parts) const = 0;
};

class BertPreTokenizer : public CuttingPreTokenizer {
 public:
  bool is_bert() const override { return true; }

 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    int32_t begin = 0;
    const int32_t size = int32_t(piece.size());
    for (int32_t i = 0; i <= size; ++i) {
      const char32_t c = i < size ? piece[size_t(i)] : U' ';
      const bool white = unicode::is_white(c);
      if (!white && !unicode::is_punctuation(c)) continue;
      out.emplace_back(begin, i);
      if (!white) out.emplace_back(i, i + 1);
      begin = i + 1;
    }
  }
};

class WhitespaceSplit : public CuttingPreTokenizer {
 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    split(cover_chars(piece, unicode::is_white), Behavior::Removed, out);
  }
};

/// \w+|[^\w\s]+
class Whitespace : public CuttingPreTokenizer {
 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    int previous = 0;  // 0 space, 1 word, 2 other
    for (int32_t i = 0; i < int32_t(piece.size()); ++i) {
      const char32_t c = piece[size_t(i)];
      const int kind = unicode::is_word(c) ? 1 : unicode::is_white(c) ? 0 : 2;
      if (kind != 0) {
        if (kind == previous) {
          out.back().second = i + 1;
        } else {
          out.emplace_back(i, i + 1);
        }
      }
      previous = kind;
    }
  }
};

class Punctuation : public CuttingPreTokenizer {
 public:
  explicit Punctuation(Behavior behavior) : behavior_(behavior) {}

 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    split(cover_chars(piece, unicode::is_punctuation), behavior_, out);
  }

 private:
  Behavior behavior_;
};

class Digits : public CuttingPreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}

 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    split(cover_chars(piece, unicode::is_numeric),
          individual_ ? Behavior::Isolated : Behavior::Contiguous, out);
  }

 private:
  bool individual_;
};

/// Pieces of so many characters.
class FixedLength : public CuttingPreTokenizer {
 public:
  explicit FixedLength(int64_t length) : length_(length) {}

 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    const int64_t size = int64_t(piece.size());
    for (int64_t at = 0; at < size; at += length_)
      out.emplace_back(int32_t(at), int32_t(std::min(at + length_, size)));
  }

 private:
  int64_t length_;
};

/// Runs of one script. What belongs to none joins the run before it; before the first run it is
/// lost, as in the reference.
class UnicodeScripts : public CuttingPreTokenizer {
 protected:
  void cut(std::u32string_view piece, std::vector<Range>& out) const override {
    int previous = unicode::kNoScript;
    for (int32_t i = 0; i < int32_t(piece.size()); ++i) {
      const int script = unicode::script(piece[size_t(i)]);
      if (script != unicode::kNoScript && script != previous) {
        out.emplace_back(i, i);
        previous = script;
      }
      if (!out.empty()) out.back().second = i + 1;
    }
  }
};

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(NormalizedText& text, std::vector<Range>& ranges) const override {
    Pattern::Matcher matcher(pattern_);
    std::vector<Range> out, parts, matches;
    const std::u32string_view chars = text.chars();
    for (const Range& range : ranges) {
      const std::u32string_view piece =
          chars.substr(size_t(range.first), size_t(range.second - range.first));
      matches.clear();
      matcher.find(piece, matches);
      std::vector<Part> covered = cover(matches, int32_t(piece.size()));
      if (invert_) {
        for (Part& part : covered) part.match = !part.match;
      }
      parts.clear();
      split(std::move(covered), behavior_, parts);
      for (const Range& part : parts) {
        if (part.first == part.second) continue;
        out.emplace_back(range.first + part.first, range.first + part.second);
      }
    }
    ranges = std::move(out);
  }
  ByteStep byte_step(std::vector<const Pattern*>& patterns) const override {
    if (behavior_ != Behavior::Isolated) return ByteStep::None;
    patterns.push_back(&pattern_);
    return ByteStep::Cut;
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

class SequencePreTokenizer : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<std::unique_ptr<PreTokenizer>> parts)
      : parts_(std::move(parts)) {}

  void apply(NormalizedText& text, std::vector<Range>& ranges) const override {
    for (const std::unique_ptr<PreTokenizer>& part : parts_) part->apply(text, ranges);
  }
  ByteStep byte_step(std::vector<const Pattern*>& patterns) const override {
    ByteStep step = ByteStep::Cut;
    for (const std::unique_ptr<PreTokenizer>& part : parts_) {
      if (step != ByteStep::Cut) return ByteStep::None;
      step = part->byte_step(patterns);
    }
    return step;
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

std::unique_ptr<PreTokenizer> make_fixed_length(const JsonView& json) {
  const int64_t length = json.has("length") ? json.at("length").as_int() : 5;
  if (length < 1 || length > INT32_MAX)
    fail(ErrorCode::Corrupt, "{}.length: expected 1 or more, found {}", json.where(), length);
  return std::make_unique<FixedLength>(length);
}

std::unique_ptr<PreTokenizer> make_sequence(const JsonView& json) {
  std::vector<std::unique_ptr<PreTokenizer>> parts;
  for (const JsonView& item : json.at("pretokenizers").items()) {
    if (std::unique_ptr<PreTokenizer> part = make_pre_tokenizer(item)) {
      parts.push_back(std::move(part));
    }
  }
  return std::make_unique<SequencePreTokenizer>(std::move(parts));
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonView& json) {
  if (json.is_null()) return nullptr;
  const std::string type = json.at("type").as_string();
  if (type == "BertPreTokenizer") return std::make_unique<BertPreTokenizer>();
  if (type == "Sequence") return make_sequence(json);
  if (type == "Whitespace") return std::make_unique<Whitespace>();
  if (type == "WhitespaceSplit") return std::make_unique<WhitespaceSplit>();
  if (type == "Punctuation") {
    return std::make_unique<Punctuation>(behavior_of(json, Behavior::Isolated));
  }
  if (type == "FixedLength") return make_fixed_length(json);
  if (type == "UnicodeScripts") return std::make_unique<UnicodeScripts>();
  if (type == "Digits") return std::make_unique<Digits>(json.flag("individual_digits", false));
  if (type == "ByteLevel") {
    return make_byte_level(json.flag("add_prefix_space", true), json.flag("use_regex", true));
  }
  if (type == "Metaspace") return make_metaspace(read_metaspace(json));
  if (type == "CharDelimiterSplit") {
    const std::string delimiter = json.at("delimiter").as_string();
    return std::make_unique<Split>(Pattern::literal(delimiter), Behavior::Removed, false);
  }
  if (type == "Split") {
    return std::make_unique<Split>(Pattern::from_json(json.at("pattern")),
                                   behavior_of(json, Behavior::Isolated),
                                   json.flag("invert", false));
  }
  fail(ErrorCode::Unsupported,
       "{}: pre-tokenizer type \"{}\" is not supported; supported: BertPreTokenizer, ByteLevel, "
       "CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, Sequence, Split, "
       "UnicodeScripts, Whitespace, WhitespaceSplit",
       json.where(), type);
}

}  // namespace attune
