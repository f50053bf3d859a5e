#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tasks/text_task.h"

namespace attune {

/// What the tasks of language models share: a head over the vocabulary, losses of given tokens,
/// text from decoding.
class GenerationTask : public TextTask {
 public:
  void prepare(const Dataset& train, const TaskContext& context) override;
  HeadRequest head() const override { return {HeadKind::Lm, 0, "auto"}; }
  /// Streams "enc" (the source) and "dec" for examples with a target, else "dec" alone; fields
  /// "example" and "labels".
  Batch collate(const std::vector<Example>& examples) const override;
  /// {"text": what greedy decoding makes of the example's prompt}.
  std::vector<Json> predict(Model& model, const Batch& batch,
                            const std::vector<Example>& examples) const override;
  std::string objective() const override { return "cross_entropy"; }
  std::string stratum(const Record&) const override { return ""; }

 protected:
  void learn(const Record&) override {}
  void label(const Record&, Example&) const override {}
};

/// Tokens that end a generated text: those of config.json, else the tokenizer's.
std::vector<int32_t> end_tokens(const Json& config, const Tokenizer& tokenizer);
/// Tokens of a text to go on with: with the specials that the tokenizer puts before a text, without
/// those it puts behind.
std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& text);
/// Greedy continuations of the examples' prompts as text, special tokens left out.
std::vector<std::string> decoded_texts(Model& model, const Tokenizer& tokenizer,
                                       const std::vector<Example>& examples,
                                       int64_t max_new_tokens);
/// Errors: Unsupported unless the model is one decoder, naming the task and the one to choose.
void check_decoder(const Model& model, const std::string& task);

}  // namespace attune
