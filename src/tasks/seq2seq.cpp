// seq2seq: a target text written from a source text by an encoder-decoder.
#include "base/error.h"
#include "data/columns.h"
#include "tasks/generation_tally.h"
#include "tasks/registry.h"

namespace attune {
namespace {

class Seq2Seq final : public GenerationTask {
 public:
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<GenerationTally>(*this, 0, true);
  }
  std::string main_metric() const override { return "rougeL"; }
  int64_t default_length(int64_t positions) const override {
    constexpr int64_t kLength = 512;
    return positions > 0 ? positions : kLength;
  }
  void check(const Model& model) const override {
    if (model.find("enc.embed.tok") != nullptr && model.find("dec.embed.tok") != nullptr) return;
    fail(ErrorCode::Unsupported,
         "task seq2seq: this model is no encoder-decoder; choose task sft (columns prompt, "
         "completion) for decoders");
  }

  Example encode(const Record& record, bool with_labels) const override {
    EncodeOptions options;
    options.max_length = context_.max_length;
    options.offsets = false;
    const Encoding source = context_.tokenizer->encode(
        text_of(record, column_of(record, "source", {"source", "text", "document", "question"})),
        options);
    Example example;
    example.ids = example.prompt = source.ids;
    if (example.ids.empty())
      fail(ErrorCode::BadInput, "{}: the source has no tokens", record.where());
    example.target = {decoder_start()};
    if (with_labels) label_target(record, options, example);
    check_length(record, example, source.dropped + example.dropped);
    return example;
  }

 private:
  /// The decoder reads the target one place later, its start token first.
  void label_target(const Record& record, const EncodeOptions& options, Example& example) const {
    example.reference =
        text_of(record, column_of(record, "target", {"target", "summary", "answer", "label"}));
    const Encoding target = context_.tokenizer->encode(example.reference, options);
    std::vector<int32_t> ids = target.ids;
    const std::optional<int32_t> end = end_token();
    if (end && target.dropped == 0 && (ids.empty() || ids.back() != *end)) ids.push_back(*end);
    if (ids.empty()) fail(ErrorCode::BadInput, "{}: the target has no tokens", record.where());
    example.labels.assign(ids.begin(), ids.end());
    example.target.insert(example.target.end(), ids.begin(), ids.end() - 1);
    example.dropped = target.dropped;
  }
};

}  // namespace

void register_seq2seq(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "seq2seq";
  entry.summary =
      "a target text from a source text (encoder-decoders); columns source, target; evaluation "
      "decodes greedily";
  entry.reference =
      "Sutskever et al. 2014, \"Sequence to Sequence Learning with Neural Networks\", arXiv "
      "1409.3215; metrics as rouge_score and sacrebleu";
  entry.make = [](const Options&) { return std::make_unique<Seq2Seq>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
