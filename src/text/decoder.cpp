#include "text/decoder.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace attune {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

void clean_up(std::string& text) {
  if (text.find(' ') == std::string::npos) return;
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

class WordPieceDecoder : public Decoder {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup)
      : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string& token = tokens[i];
      if (i > 0) {
        if (token.starts_with(prefix_)) {
          token.erase(0, prefix_.size());
        } else {
          token.insert(0, 1, ' ');
        }
      }
      // Token by token, as the reference does: a rule never sees two tokens.
      if (cleanup_) clean_up(token);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

/// Tokens of a tokenizer without decoder, with blanks between them.
class BlankDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 1; i < tokens.size(); ++i) tokens[i].insert(0, 1, ' ');
  }
};

/// Printable characters become bytes again; a token with another character is taken as it is.
class ByteLevelDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) append(token, bytes);
    std::string text;
    unicode::append_lossy(text, bytes);
    tokens.assign(1, std::move(text));
  }

 private:
  static void append(const std::string& token, std::string& out) {
    const size_t before = out.size();
    for (const char *at = token.data(), *end = at + token.size(); at < end;) {
      const int byte = byte_level::to_byte(unicode::next(at));
      if (byte < 0) {
        out.resize(before);
        out += token;
        return;
      }
      out += char(byte);
    }
  }
};

/// Runs of byte tokens become text; in a run that is not UTF-8, U+FFFD stands for every byte.
class ByteFallbackDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string run;
    const auto flush = [&] {
      if (run.empty()) return;
      std::string text;
      unicode::append_lossy(text, run);
      // Text without replacements is as long as the bytes and equal to them.
      if (text == run) {
        out.push_back(std::move(text));
      } else {
        out.insert(out.end(), run.size(), "\uFFFD");
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      const int byte = byte_of_token(token);
      if (byte >= 0) {
        run += char(byte);
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    tokens = std::move(out);
  }
  bool joins_bytes() const override { return true; }
};

class FuseDecoder : public Decoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string text;
    for (const std::string& token : tokens) text += token;
    tokens.assign(1, std::move(text));
  }
};

/// Takes up to `start` and `stop` times the character off the ends of every token.
class StripDecoder : public Decoder {
 public:
  StripDecoder(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) {
      std::string_view rest = token;
      for (int64_t i = 0; i < start_ && rest.starts_with(content_); ++i) {
        rest.remove_prefix(content_.size());
      }
      for (int64_t i = 0; i < stop_ && rest.ends_with(content_); ++i) {
        rest.remove_suffix(content_.size());
      }
      token = std::string(rest);
    }
  }

 private:
  std::string content_;
  int64_t start_, stop_;
};

class ReplaceDecoder : public Decoder {
 public:
  ReplaceDecoder(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(std::vector<std::string>& tokens) const override {
    Pattern::Matcher matcher(pattern_);
    std::vector<Pattern::Range> matches;
    for (std::string& token : tokens) {
      matches.clear();
      matcher.find_bytes(token, matches);
      if (matches.empty()) continue;
      std::string out;
      size_t at = 0;
      for (const auto& [begin, end] : matches) {
        out.append(token, at, size_t(begin) - at);
        out += content_;
        at = size_t(end);
      }
      out.append(token, at);
      token = std::move(out);
    }
  }

 private:
  Pattern pattern_;
  std::string content_;
};

/// The replacement becomes a blank again; in the first token it vanishes, unless none was put
/// there.
class MetaspaceDecoder : public Decoder {
 public:
  explicit MetaspaceDecoder(const MetaspaceOptions& options)
      : drop_first_(options.prepend != MetaspaceOptions::Prepend::Never) {
    unicode::append(mark_, options.replacement);
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      replace_all(tokens[i], mark_, i == 0 && drop_first_ ? "" : " ");
    }
  }

 private:
  std::string mark_;
  bool drop_first_;
};

/// The suffix of a word's last piece becomes a blank, that of the last token nothing.
class BpeDecoder : public Decoder {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  void apply(std::vector<std::string>& tokens) const override {
    if (suffix_.empty()) return;
    for (size_t i = 0; i < tokens.size(); ++i) {
      replace_all(tokens[i], suffix_, i + 1 < tokens.size() ? " " : "");
    }
  }

 private:
  std::string suffix_;
};

/// Of what a classifier gave for every moment: repeated tokens count once, those between them and
/// the delimiter of words vanish.
class CtcDecoder : public Decoder {
 public:
  explicit CtcDecoder(const JsonView& json)
      : pad_(json.text("pad_token", "<pad>")),
        delimiter_(json.text("word_delimiter_token", "|")),
        cleanup_(json.flag("cleanup", true)) {}
  void apply(std::vector<std::string>& tokens) const override {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      if (!pad_.empty()) replace_all(token, pad_, "");
      if (!cleanup_) continue;
      clean_up(token);
      if (!delimiter_.empty()) replace_all(token, delimiter_, " ");
    }
    std::erase_if(tokens, [](const std::string& token) { return token.empty(); });
  }

 private:
  std::string pad_, delimiter_;
  bool cleanup_;
};

class SequenceDecoder : public Decoder {
 public:
  explicit SequenceDecoder(const JsonView& json) {
    for (const JsonView& item : json.at("decoders").items()) parts_.push_back(make_decoder(item));
  }
  void apply(std::vector<std::string>& tokens) const override {
    for (const std::unique_ptr<Decoder>& part : parts_) part->apply(tokens);
  }
  bool joins_bytes() const override {
    for (const std::unique_ptr<Decoder>& part : parts_) {
      if (part->joins_bytes()) return true;
    }
    return false;
  }

 private:
  std::vector<std::unique_ptr<Decoder>> parts_;
};

std::unique_ptr<Decoder> make_strip_decoder(const JsonView& json) {
  std::string content = json.at("content").as_string();
  if (unicode::decode(content).size() != 1) {
    fail(ErrorCode::Corrupt, "{}.content: expected one character, found \"{}\"", json.where(),
         content);
  }
  const int64_t start = json.at("start").as_int();
  return std::make_unique<StripDecoder>(std::move(content), start, json.at("stop").as_int());
}

}  // namespace

void clean_up_spaces(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(text, from, to);
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  apply(tokens);
  std::string out;
  for (const std::string& token : tokens) out += token;
  return out;
}

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    const char letter = char(c | 0x20);
    if (!digit && (letter < 'a' || letter > 'f')) return -1;
    value = value * 16 + (digit ? c - '0' : letter - 'a' + 10);
  }
  return value;
}

std::unique_ptr<Decoder> make_word_piece_decoder(std::string prefix, bool cleanup) {
  return std::make_unique<WordPieceDecoder>(std::move(prefix), cleanup);
}

std::unique_ptr<Decoder> make_decoder(const JsonView& json) {
  if (json.is_null()) return std::make_unique<BlankDecoder>();
  const std::string type = json.at("type").as_string();
  if (type == "WordPiece") {
    return make_word_piece_decoder(json.text("prefix", "##"), json.flag("cleanup", true));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackDecoder>();
  if (type == "CTC") return std::make_unique<CtcDecoder>(json);
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Metaspace") return std::make_unique<MetaspaceDecoder>(read_metaspace(json));
  if (type == "BPEDecoder") return std::make_unique<BpeDecoder>(json.text("suffix", "</w>"));
  if (type == "Sequence") return std::make_unique<SequenceDecoder>(json);
  if (type == "Strip") return make_strip_decoder(json);
  if (type == "Replace") {
    return std::make_unique<ReplaceDecoder>(Pattern::from_json(json.at("pattern")),
                                            json.at("content").as_string());
  }
  fail(ErrorCode::Unsupported,
       "{}: decoder type \"{}\" is not supported; supported: BPEDecoder, ByteFallback, ByteLevel, "
       "CTC, Fuse, Metaspace, Replace, Sequence, Strip, WordPiece",
       json.where(), type);
}

}  // namespace attune
