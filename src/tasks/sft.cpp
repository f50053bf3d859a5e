// sft: a completion after its prompt; only the completion carries loss.
#include "base/error.h"
#include "data/columns.h"
#include "tasks/generation_tally.h"
#include "tasks/registry.h"

namespace attune {
namespace {

/// Rows of an evaluation that are decoded: decoding costs many passes a row.
constexpr int64_t kDecodedRows = 64;

class Sft final : public GenerationTask {
 public:
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<GenerationTally>(*this, kDecodedRows, false);
  }
  std::string main_metric() const override { return "perplexity"; }
  void check(const Model& model) const override { check_decoder(model, "sft"); }

  Example encode(const Record& record, bool with_labels) const override {
    if (has_column(record, "messages") || context_.columns.count("messages") > 0)
      fail(ErrorCode::Unsupported,
           "{}: column \"messages\": chat templates are not built yet; give the columns prompt and "
           "completion",
           record.where());
    Example example;
    example.prompt =
        prompt_ids(*context_.tokenizer,
                   text_of(record, column_of(record, "prompt", {"prompt", "instruction", "text"})));
    if (example.prompt.empty())
      fail(ErrorCode::BadInput, "{}: the prompt has no tokens; there is nothing to go on with",
           record.where());
    if (with_labels) {
      complete(record, example);
    } else {
      example.ids = example.prompt;
    }
    return example;
  }

 private:
  /// Prompt, completion and end token, cut to max_length: first the prompt's beginning (not its
  /// special first token), then the completion's end.
  void complete(const Record& record, Example& example) const {
    example.reference =
        text_of(record, column_of(record, "completion", {"completion", "response", "target"}));
    EncodeOptions plain;
    plain.add_special_tokens = false;
    std::vector<int32_t> completion = context_.tokenizer->encode(example.reference, plain).ids;
    if (const std::optional<int32_t> end = end_token()) completion.push_back(*end);
    std::vector<int32_t>& prompt = example.prompt;
    const int64_t length = static_cast<int64_t>(prompt.size() + completion.size());
    int64_t over = context_.max_length > 0 ? length - context_.max_length : 0;
    const int64_t dropped = std::max<int64_t>(0, over);
    const bool special = context_.tokenizer->bos_id() == prompt.front();
    const int64_t first = special ? 1 : 0;
    const int64_t of_prompt =
        std::clamp<int64_t>(over, 0, static_cast<int64_t>(prompt.size()) - first - (1 - first));
    prompt.erase(prompt.begin() + first, prompt.begin() + first + of_prompt);
    over -= of_prompt;
    if (over > 0)
      completion.resize(completion.size() - std::min(completion.size(), static_cast<size_t>(over)));
    example.ids = prompt;
    example.ids.insert(example.ids.end(), completion.begin(), completion.end());
    example.labels.assign(example.ids.size(), kUnlabelled);
    for (size_t row = prompt.size() - 1; row + 1 < example.ids.size(); ++row)
      example.labels[row] = example.ids[row + 1];
    check_length(record, example, dropped);
  }
};

}  // namespace

void register_sft(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "sft";
  entry.summary =
      "a completion after its prompt (decoders); columns prompt, completion; the prompt carries no "
      "loss";
  entry.reference =
      "Ouyang et al. 2022, \"Training language models to follow instructions with human "
      "feedback\", arXiv 2203.02155, supervised fine-tuning; ROUGE-L as rouge_score";
  entry.make = [](const Options&) { return std::make_unique<Sft>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
