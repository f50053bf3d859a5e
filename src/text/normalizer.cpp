#include "text/normalizer.h"

#include <utility>

#include "base/error.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace attune {
namespace {

class FormNormalizer : public Normalizer {
 public:
  explicit FormNormalizer(NormalizedText::Form form) : form_(form) {}
  void apply(NormalizedText& text) const override { text.normalize(form_); }

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

std::unique_ptr<Normalizer> make_sequence(const JsonView& json) {
  std::vector<std::unique_ptr<Normalizer>> parts;
  for (const JsonView& item : json.at("normalizers").items()) {
    if (std::unique_ptr<Normalizer> part = make_normalizer(item)) parts.push_back(std::move(part));
  }
  return std::make_unique<SequenceNormalizer>(std::move(parts));
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

std::unique_ptr<Normalizer> make_normalizer(const JsonView& json) {
  using Form = NormalizedText::Form;
  if (json.is_null()) return nullptr;
  const std::string type = json.at("type").as_string();
  if (type == "BertNormalizer") return make_bert(json);
  if (type == "Sequence") return make_sequence(json);
  if (type == "Lowercase") return std::make_unique<LowercaseNormalizer>();
  if (type == "StripAccents") return std::make_unique<StripAccentsNormalizer>();
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
  fail(ErrorCode::Unsupported,
       "{}: normalizer type \"{}\" is not supported; supported: BertNormalizer, Lowercase, NFC, "
       "NFD, "
       "NFKC, NFKD, StripAccents, Strip, Replace, Prepend, Sequence",
       json.where(), type);
}

}  // namespace attune
