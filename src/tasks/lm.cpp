// lm: the next token of plain text.
#include "base/error.h"
#include "data/columns.h"
#include "metrics/perplexity.h"
#include "tasks/generation.h"
#include "tasks/registry.h"
#include "tasks/token_windows.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class LmTally final : public Tally {
 public:
  void measure(Model& model, const Batch& batch, const std::vector<Example>& examples) override {
    const Tensor& labels = batch.fields.at("labels");
    const Output output = model.forward(batch, Want{{}, true, labels});
    sums_.nll += output.head->row_losses(labels).sum().item<double>();
    sums_.tokens += labels.ne(kUnlabelled).sum().item<int64_t>();
    for (const Example& example : examples) {
      sums_.words += example.words;
      sums_.bytes += example.bytes;
    }
    windows_ += static_cast<int64_t>(examples.size());
  }
  Json metrics() const override {
    const PerplexityReport report = perplexity_report(sums_);
    return Json{
        {"loss", report.loss},
        {"perplexity", report.perplexity},
        {"word_perplexity", report.word_perplexity},
        {"byte_perplexity", report.byte_perplexity},
        {"bits_per_byte", report.bits_per_byte},
        {"counts", Json{{"tokens", sums_.tokens}, {"words", sums_.words}, {"bytes", sums_.bytes}}},
        {"examples", windows_}};
  }

 private:
  LikelihoodSums sums_;
  int64_t windows_ = 0;
};

class Lm final : public GenerationTask {
 public:
  std::unique_ptr<Tally> tally() const override { return std::make_unique<LmTally>(); }
  std::string main_metric() const override { return "perplexity"; }
  int64_t default_length(int64_t positions) const override {
    constexpr int64_t kWindow = 1024;
    return positions > 0 ? std::min(positions, kWindow) : kWindow;
  }
  std::shared_ptr<const Windows> windows(const Dataset& data) const override {
    return std::make_shared<TokenWindows>(
        data, *context_.tokenizer, context_.max_length,
        [this](const Record& record) { return text_column(record); });
  }
  void check(const Model& model) const override { check_decoder(model, "lm"); }

  /// A text to go on with (prediction).
  Example encode(const Record& record, bool) const override {
    Example example;
    example.ids = example.prompt =
        prompt_ids(*context_.tokenizer, text_of(record, text_column(record)));
    if (example.ids.empty())
      fail(ErrorCode::BadInput, "{}: the text is empty; there is nothing to go on with",
           record.where());
    return example;
  }

 private:
  std::string text_column(const Record& record) const {
    return column_of(record, "text", {"text", "content"});
  }
};

}  // namespace

void register_lm(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "lm";
  entry.summary =
      "the next token of plain text (decoders); plain text files or column text, cut into windows "
      "of data.max_length";
  entry.reference =
      "Bengio et al. 2003, \"A Neural Probabilistic Language Model\"; perplexities of words and "
      "bytes as in lm-evaluation-harness";
  entry.make = [](const Options&) { return std::make_unique<Lm>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
