#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tasks/text_task.h"

namespace attune {

/// How a checkpoint says that text is generated.
struct GenerationDefaults {
  std::vector<int32_t> eos;    // tokens that end a text; may be empty
  int32_t decoder_start = -1;  // encoder-decoders: the decoder's first token; -1: not said
};
/// From generation_config.json of the folder, else from config.json, else from the tokenizer (which
/// may be null). An encoder-decoder that says no start token starts with its padding token.
GenerationDefaults generation_defaults(const Json& config, const std::string& directory,
                                       const Tokenizer* tokenizer);

/// What the tasks of language models share: a head over the vocabulary, losses of given tokens,
/// text from decoding.
class GenerationTask : public TextTask {
 public:
  void prepare(const Dataset& train, const TaskContext& context) override;
  void restore(const Json& state, const TaskContext& context) override;
  HeadRequest head() const override { return {HeadKind::Lm, 0, "auto"}; }
  /// Streams "enc" (the source) and "dec" for examples with a target, else "dec" alone; fields
  /// "example" and "labels".
  Batch collate(const std::vector<Example>& examples) const override;
  /// {"text": what greedy decoding makes of the example's prompt}.
  std::vector<Json> predict(Model& model, const Batch& batch,
                            const std::vector<Example>& examples) const override;
  std::string objective() const override { return "cross_entropy"; }
  std::string stratum(const Record&) const override { return ""; }
  /// Greedy continuations of the examples' prompts as text, special tokens left out; up to
  /// `tokens` new tokens, or 128 where that is more.
  std::vector<std::string> decoded_texts(Model& model, const std::vector<Example>& examples,
                                         int64_t tokens) const;

 protected:
  std::optional<int32_t> end_token() const;
  int32_t decoder_start() const { return defaults_.decoder_start; }
  void learn(const Record&) override {}
  void label(const Record&, Example&) const override {}

 private:
  void read_defaults();
  GenerationDefaults defaults_;
};

/// Tokens of a text to go on with: with the specials that the tokenizer puts before a text, without
/// those it puts behind.
std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& text);
/// Errors: Unsupported unless the model is one decoder, naming the task and the one to choose.
void check_decoder(const Model& model, const std::string& task);

}  // namespace attune
