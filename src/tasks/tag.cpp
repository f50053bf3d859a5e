// tag: one tag a word; the word's first sub-token carries it.
#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"
#include "metrics/seqeval.h"
#include "tasks/registry.h"
#include "tasks/text_task.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<std::string> tags_of(const Tensor& best, const RowIndex& rows, int64_t sequence,
                                 const Example& example, const std::vector<std::string>& names) {
  const int64_t* values = static_cast<const int64_t*>(best.data_ptr());
  std::vector<std::string> tags;
  for (const int64_t row : example.first_rows)
    tags.push_back(row < 0 ? "O" : names[static_cast<size_t>(values[rows.begin(sequence) + row])]);
  return tags;
}

class TagTally final : public Tally {
 public:
  explicit TagTally(std::vector<std::string> names) : names_(std::move(names)) {}
  void add(const Tensor& logits, const RowIndex& rows,
           const std::vector<Example>& examples) override {
    const Tensor best = logits.argmax(1).contiguous();
    for (size_t i = 0; i < examples.size(); ++i) {
      // Words that max_length cut off have no prediction: they count as O, so the cut costs recall.
      predicted_.push_back(tags_of(best, rows, static_cast<int64_t>(i), examples[i], names_));
      std::vector<std::string> gold;
      for (const int64_t tag : examples[i].word_labels)
        gold.push_back(names_[static_cast<size_t>(tag)]);
      gold_.push_back(std::move(gold));
    }
  }
  Json metrics() const override {
    const SequenceReport report = sequence_report(gold_, predicted_);
    Json types = Json::object();
    for (const std::pair<const std::string, EntityScore>& entry : report.types)
      types[entry.first] = Json{{"precision", entry.second.precision},
                                {"recall", entry.second.recall},
                                {"f1", entry.second.f1},
                                {"support", entry.second.support}};
    return Json{
        {"f1", report.overall.f1},         {"precision", report.overall.precision},
        {"recall", report.overall.recall}, {"accuracy", report.accuracy},
        {"macro_f1", report.macro_f1},     {"mode", entity_mode_name(EntityMode::Conlleval)},
        {"examples", gold_.size()},        {"per_label", types}};
  }

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<std::string>> gold_, predicted_;
};

class Tag final : public TextTask {
 public:
  HeadRequest head() const override { return {HeadKind::Token, labels_.size(), "auto"}; }
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<TagTally>(labels_.names());
  }
  std::string objective() const override { return "cross_entropy"; }
  std::string main_metric() const override { return "f1"; }
  std::string stratum(const Record&) const override { return ""; }

  Example encode(const Record& record, bool with_labels) const override {
    EncodeOptions options;
    options.max_length = context_.max_length;
    options.offsets = false;
    const std::vector<std::string> words = words_of(record);
    Encoding encoding = context_.tokenizer->encode_words(words, options);
    Example example;
    example.first_rows.assign(words.size(), -1);
    for (size_t row = 0; row < encoding.ids.size(); ++row) {
      const int32_t word = encoding.word_ids[row];
      if (word >= 0 && example.first_rows[static_cast<size_t>(word)] < 0)
        example.first_rows[static_cast<size_t>(word)] = static_cast<int64_t>(row);
    }
    example.ids = std::move(encoding.ids);
    example.types = std::move(encoding.type_ids);
    check_length(record, example, encoding.dropped);
    if (with_labels) label(record, example);
    return example;
  }

  std::vector<Json> predictions(const Tensor& logits, const RowIndex& rows,
                                const std::vector<Example>& examples) const override {
    const Tensor best = logits.argmax(1).contiguous();
    std::vector<Json> result;
    for (size_t i = 0; i < examples.size(); ++i) {
      const std::vector<std::string> tags =
          tags_of(best, rows, static_cast<int64_t>(i), examples[i], labels_.names());
      Json spans = Json::array();
      for (const Entity& entity : entities(tags, EntityMode::Conlleval))
        spans.push_back(
            Json{{"type", entity.type}, {"first", entity.first}, {"last", entity.last}});
      result.push_back(Json{{"tags", tags}, {"spans", spans}});
    }
    return result;
  }

 protected:
  void learn(const Record& record) override { labels_.add(record, tag_column(record)); }
  void learned() override { labels_.finish(2); }
  void check_row(const Record& record) const override {
    const std::string name = tag_column(record);
    const Json& tags = column(record, name);  // texts or whole numbers, which learn() has read
    const size_t count = tags.is_array() ? tags.size() : strings_of(record, name).size();
    check_counts(record, words_of(record).size(), count);
  }
  void label(const Record& record, Example& example) const override {
    const std::vector<int64_t> ids = labels_.ids(record, tag_column(record));
    check_counts(record, example.first_rows.size(), ids.size());
    example.labels.assign(example.ids.size(), kUnlabelled);
    example.word_labels = ids;
    for (size_t word = 0; word < ids.size(); ++word) {
      if (example.first_rows[word] >= 0)
        example.labels[static_cast<size_t>(example.first_rows[word])] = ids[word];
    }
  }

 private:
  std::string tag_column(const Record& record) const {
    return context_.columns.count("tags") > 0
               ? context_.columns.at("tags")
               : column_of(record, "labels", {"tags", "ner_tags", "labels", "label"});
  }
  static void check_counts(const Record& record, size_t tokens, size_t tags) {
    if (tokens != tags)
      fail(ErrorCode::BadInput, "{}: {} tokens but {} tags; each token needs one tag",
           record.where(), tokens, tags);
  }
  std::vector<std::string> words_of(const Record& record) const {
    const std::string name = column_of(record, "tokens", {"tokens", "words"});
    if (has_column(record, name)) return strings_of(record, name);
    // Plain text at prediction: words are what white space separates.
    std::vector<std::string> words;
    for (const std::string& word : split(text_of(record, column_of(record, "text", {"text"})), ' '))
      if (!trim(word).empty()) words.emplace_back(trim(word));
    return words;
  }
};

}  // namespace

void register_tag(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "tag";
  entry.summary = "one tag a word (named entities, parts of speech); columns tokens, tags";
  entry.reference = "seqeval, default mode (conlleval): Tjong Kim Sang and De Meulder 2003";
  entry.make = [](const Options&) { return std::make_unique<Tag>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
