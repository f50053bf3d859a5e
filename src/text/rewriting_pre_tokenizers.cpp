#include "base/error.h"
#include "text/byte_level.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace attune {
namespace {

using Span = NormalizedText::Span;

/// A text being written anew, range by range.
class Rewrite {
 public:
  Rewrite(NormalizedText& text, std::vector<PreTokenizer::Range>& ranges)
      : text_(text), ranges_(ranges) {
    chars_.reserve(text.chars().size() + ranges.size());
    spans_.reserve(text.chars().size() + ranges.size());
  }
  int32_t size() const { return int32_t(chars_.size()); }
  void add(char32_t c, Span span) {
    chars_.push_back(c);
    spans_.push_back(span);
  }
  void range(int32_t begin, int32_t end) {
    if (begin < end) out_.emplace_back(begin, end);
  }
  void finish() {
    text_ = NormalizedText(std::move(chars_), std::move(spans_), text_.origin());
    ranges_ = std::move(out_);
  }

 private:
  NormalizedText& text_;
  std::vector<PreTokenizer::Range>& ranges_;
  std::u32string chars_;
  std::vector<Span> spans_;
  std::vector<PreTokenizer::Range> out_;
};

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const MetaspaceOptions& options) : options_(options) {}

  void apply(NormalizedText& text, std::vector<Range>& ranges) const override {
    using Prepend = MetaspaceOptions::Prepend;
    const char32_t mark = options_.replacement;
    const std::u32string& chars = text.chars();
    Rewrite out(text, ranges);
    for (const auto& [begin, end] : ranges) {
      int32_t word = out.size();
      const char32_t first = chars[size_t(begin)];
      const Span span = text.spans()[size_t(begin)];
      const bool wanted = options_.prepend == Prepend::Always ||
                          (options_.prepend == Prepend::First && span.first == 0);
      if (wanted && first != mark && first != U' ') out.add(mark, span);
      for (int32_t i = begin; i < end; ++i) {
        const char32_t c = chars[size_t(i)] == U' ' ? mark : chars[size_t(i)];
        if (c == mark && options_.split && out.size() > word) {
          out.range(word, out.size());
          word = out.size();
        }
        out.add(c, text.spans()[size_t(i)]);
      }
      out.range(word, out.size());
    }
    out.finish();
  }

 private:
  MetaspaceOptions options_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : prefix_(add_prefix_space) {
    if (!use_regex) return;
    words_ = std::make_unique<Pattern>(Pattern::regex(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", ""));
  }

  void apply(NormalizedText& text, std::vector<Range>& ranges) const override {
    if (prefix_) prepend(text, ranges);
    if (words_) cut(text, ranges);
    Rewrite out(text, ranges);
    for (const auto& [begin, end] : ranges) {
      const int32_t word = out.size();
      for (int32_t i = begin; i < end; ++i) {
        char bytes[4];
        const int size = unicode::encode(text.chars()[size_t(i)], bytes);
        for (int k = 0; k < size; ++k) {
          out.add(byte_level::to_char(uint8_t(bytes[k])), text.spans()[size_t(i)]);
        }
      }
      out.range(word, out.size());
    }
    out.finish();
  }
  ByteStep byte_step(std::vector<const Pattern*>& patterns) const override {
    if (prefix_) return ByteStep::None;
    if (words_) patterns.push_back(words_.get());
    return ByteStep::Write;
  }

 private:
  static void prepend(NormalizedText& text, std::vector<Range>& ranges) {
    Rewrite out(text, ranges);
    for (const auto& [begin, end] : ranges) {
      const int32_t word = out.size();
      if (text.chars()[size_t(begin)] != U' ') out.add(U' ', text.spans()[size_t(begin)]);
      for (int32_t i = begin; i < end; ++i) {
        out.add(text.chars()[size_t(i)], text.spans()[size_t(i)]);
      }
      out.range(word, out.size());
    }
    out.finish();
  }

  /// The expression covers every text, so that its matches are the words.
  void cut(const NormalizedText& text, std::vector<Range>& ranges) const {
    Pattern::Matcher matcher(*words_);
    const std::u32string_view chars = text.chars();
    std::vector<Range> out, matches;
    for (const auto& [begin, end] : ranges) {
      matches.clear();
      matcher.find(chars.substr(size_t(begin), size_t(end - begin)), matches);
      for (const Range& match : matches) {
        out.emplace_back(begin + match.first, begin + match.second);
      }
    }
    ranges = std::move(out);
  }

  bool prefix_;
  std::unique_ptr<Pattern> words_;  // null: not wanted
};

}  // namespace

MetaspaceOptions read_metaspace(const JsonView& json) {
  using Prepend = MetaspaceOptions::Prepend;
  MetaspaceOptions out;
  const std::u32string mark = unicode::decode(json.at("replacement").as_string());
  if (mark.size() != 1) {
    fail(ErrorCode::Corrupt, "{}.replacement: expected one character, found {}", json.where(),
         mark.size());
  }
  out.replacement = mark[0];
  out.split = json.flag("split", true);
  const std::string scheme = json.text("prepend_scheme", "always");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    fail(ErrorCode::Corrupt, "{}.prepend_scheme: expected always, first or never, found \"{}\"",
         json.where(), scheme);
  }
  out.prepend = scheme == "always"  ? Prepend::Always
                : scheme == "first" ? Prepend::First
                                    : Prepend::Never;
  // Older files say it with a flag.
  if (!json.flag("add_prefix_space", true)) {
    if (json.has("prepend_scheme") && out.prepend != Prepend::Never) {
      fail(ErrorCode::Corrupt,
           "{}: add_prefix_space is false, but prepend_scheme is \"{}\"; expected never",
           json.where(), scheme);
    }
    out.prepend = Prepend::Never;
  }
  return out;
}

std::unique_ptr<PreTokenizer> make_metaspace(const MetaspaceOptions& options) {
  return std::make_unique<Metaspace>(options);
}

std::unique_ptr<PreTokenizer> make_byte_level(bool add_prefix_space, bool use_regex) {
  return std::make_unique<ByteLevel>(add_prefix_space, use_regex);
}

}  // namespace attune
