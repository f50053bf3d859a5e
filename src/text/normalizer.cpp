#include "text/normalizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/char_map.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace attune {
namespace {

class FormNormalizer : public Normalizer {
 public:
  explicit FormNormalizer(NormalizedText::Form form) : form_(form) {}
  void apply(NormalizedText& text) const override {
    const std::u32string& chars = text.chars();
    const auto inert = [this](char32_t c) { return unicode::is_inert(c, form_); };
    if (!std::all_of(chars.begin(), chars.end(), inert)) text.normalize(form_);
  }
  bool keeps(std::string_view text) const override {
    for (const char *at = text.data(), *end = at + text.size(); at < end;) {
      const char32_t c = unicode::next(at);
      if (c >= 0x80 && !unicode::is_inert(c, form_)) return false;
    }
    return true;
  }

 private:
  NormalizedText::Form form_;
};

class LowercaseNormalizer : public Normalizer {
 public:
  void apply(NormalizedText& text) const override { text.lowercase(); }
};

class StripAccentsNormalizer : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    const std::u32string& chars = text.chars();
    if (std::none_of(chars.begin(), chars.end(), unicode::is_mark)) return;
    text.filter([](char32_t c) { return !unicode::is_mark(c); });
  }
};

class StripNormalizer : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  void apply(NormalizedText& text) const override { text.strip(left_, right_); }

 private:
  bool left_, right_;
};

class PrependNormalizer : public Normalizer {
 public:
  explicit PrependNormalizer(std::u32string text) : text_(std::move(text)) {}
  void apply(NormalizedText& text) const override { text.prepend(text_); }

 private:
  std::u32string text_;
};

class ReplaceNormalizer : public Normalizer {
 public:
  ReplaceNormalizer(Pattern pattern, std::u32string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(NormalizedText& text) const override {
    const std::vector<Pattern::Range> matches = pattern_.find(text.chars());
    if (!matches.empty()) text.replace(matches, content_);
  }

 private:
  Pattern pattern_;
  std::u32string content_;
};

/// SentencePiece's cleaning for translation: control characters go, what is or stands for a space
/// becomes a blank.
class NmtNormalizer : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    text.filter([](char32_t c) {
      return !((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
               c == 0x8F || c == 0x9F);
    });
    text.map([](char32_t c) {
      const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      return space ? U' ' : c;
    });
  }
};

/// Every byte as its printable character.
class ByteLevelNormalizer : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    std::vector<NormalizedText::Change> changes;
    changes.reserve(text.chars().size());
    for (const char32_t c : text.chars()) {
      char bytes[4];
      const int size = unicode::encode(c, bytes);
      for (int i = 0; i < size; ++i) {
        changes.emplace_back(byte_level::to_char(uint8_t(bytes[i])), i > 0 ? 1 : 0);
      }
    }
    text.transform(changes);
  }
};

class SequenceNormalizer : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<std::unique_ptr<Normalizer>> parts)
      : parts_(std::move(parts)) {}
  void apply(NormalizedText& text) const override {
    for (const std::unique_ptr<Normalizer>& part : parts_) part->apply(text);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

std::unique_ptr<Normalizer> make_bert(const JsonView& json) {
  BertOptions options;
  options.clean_text = json.flag("clean_text", true);
  options.handle_chinese_chars = json.flag("handle_chinese_chars", true);
  options.lowercase = json.flag("lowercase", true);
  options.strip_accents = json.flag("strip_accents", options.lowercase);
  return std::make_unique<BertNormalizer>(options);
}

}  // namespace

void BertNormalizer::apply(NormalizedText& text) const {
  if (options_.clean_text) {
    text.filter([](char32_t c) {
      if (c == '\t' || c == '\n' || c == '\r') return true;
      return c != 0 && c != 0xFFFD && !unicode::is_other(c);
    });
    text.map([](char32_t c) { return unicode::is_white(c) ? U' ' : c; });
  }
  if (options_.handle_chinese_chars) {
    std::vector<NormalizedText::Change> changes;
    changes.reserve(text.chars().size());
    for (const char32_t c : text.chars()) {
      if (unicode::is_cjk(c)) {
        changes.insert(changes.end(), {{U' ', 0}, {c, 1}, {U' ', 1}});
      } else {
        changes.emplace_back(c, 0);
      }
    }
    text.transform(changes);
  }
  if (options_.strip_accents) {
    text.normalize(NormalizedText::Form::Nfd);
    text.filter([](char32_t c) { return !unicode::is_nonspacing(c); });
  }
  if (options_.lowercase) text.lowercase();
}

std::unique_ptr<Normalizer> make_normalizer_sequence(
    std::vector<std::unique_ptr<Normalizer>> parts) {
  if (parts.size() < 2) return parts.empty() ? nullptr : std::move(parts[0]);
  return std::make_unique<SequenceNormalizer>(std::move(parts));
}

std::unique_ptr<Normalizer> make_normalizer(const JsonView& json) {
  using Form = NormalizedText::Form;
  if (json.is_null()) return nullptr;
  const std::string type = json.at("type").as_string();
  if (type == "BertNormalizer") return make_bert(json);
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> parts;
    for (const JsonView& item : json.at("normalizers").items()) {
      if (std::unique_ptr<Normalizer> part = make_normalizer(item))
        parts.push_back(std::move(part));
    }
    return make_normalizer_sequence(std::move(parts));
  }
  if (type == "Lowercase") return std::make_unique<LowercaseNormalizer>();
  if (type == "StripAccents") return std::make_unique<StripAccentsNormalizer>();
  if (type == "Nmt") return std::make_unique<NmtNormalizer>();
  if (type == "NFC") return std::make_unique<FormNormalizer>(Form::Nfc);
  if (type == "NFD") return std::make_unique<FormNormalizer>(Form::Nfd);
  if (type == "NFKC") return std::make_unique<FormNormalizer>(Form::Nfkc);
  if (type == "NFKD") return std::make_unique<FormNormalizer>(Form::Nfkd);
  if (type == "Strip") {
    return std::make_unique<StripNormalizer>(json.at("strip_left").as_bool(),
                                             json.at("strip_right").as_bool());
  }
  if (type == "Prepend") {
    return std::make_unique<PrependNormalizer>(unicode::decode(json.at("prepend").as_string()));
  }
  if (type == "Replace") {
    return std::make_unique<ReplaceNormalizer>(Pattern::from_json(json.at("pattern")),
                                               unicode::decode(json.at("content").as_string()));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevelNormalizer>();
  if (type == "Precompiled") {
    const JsonView map = json.at("precompiled_charsmap");
    return std::make_unique<CharMapNormalizer>(decode_base64(map.as_string(), map.where()),
                                               map.where());
  }
  fail(ErrorCode::Unsupported,
       "{}: normalizer type \"{}\" is not supported; supported: BertNormalizer, ByteLevel, "
       "Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, Sequence, "
       "Strip, StripAccents",
       json.where(), type);
}

}  // namespace attune
