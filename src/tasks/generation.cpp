#include "tasks/generation.h"

#include "base/error.h"
#include "decode/generate.h"
#include "tensor/torch.h"

namespace attune {

namespace {

/// Tokens that a prediction may have.
constexpr int64_t kPredictedTokens = 128;

Stream stream_of(const std::vector<Example>& examples, std::vector<int32_t> Example::*ids) {
  std::vector<int64_t> lengths;
  std::vector<int32_t> tokens;
  for (const Example& example : examples) {
    lengths.push_back(static_cast<int64_t>((example.*ids).size()));
    tokens.insert(tokens.end(), (example.*ids).begin(), (example.*ids).end());
  }
  Stream stream;
  stream.rows = RowIndex::from_lengths(lengths);
  stream.ids = int32_tensor(tokens);
  return stream;
}

}  // namespace

void GenerationTask::prepare(const Dataset&, const TaskContext& context) {
  context_ = context;
}

Batch GenerationTask::collate(const std::vector<Example>& examples) const {
  Batch batch;
  const bool target = !examples.empty() && !examples.front().target.empty();
  if (target) {
    batch.streams["enc"] = stream_of(examples, &Example::ids);
    batch.streams["dec"] = stream_of(examples, &Example::target);
  } else {
    batch.streams["dec"] = stream_of(examples, &Example::ids);
  }
  std::vector<int64_t> labels, ids;
  for (const Example& example : examples) {
    ids.push_back(example.id);
    labels.insert(labels.end(), example.labels.begin(), example.labels.end());
  }
  batch.fields["example"] = int64_tensor(ids);
  if (!labels.empty()) batch.fields["labels"] = int64_tensor(labels);
  return batch;
}

std::vector<Json> GenerationTask::predict(Model& model, const Batch&,
                                          const std::vector<Example>& examples) const {
  std::vector<Json> result;
  for (const std::string& text :
       decoded_texts(model, *context_.tokenizer, examples, kPredictedTokens))
    result.push_back(Json{{"text", text}});
  return result;
}

std::vector<int32_t> end_tokens(const Json& config, const Tokenizer& tokenizer) {
  const Json ends = config.contains("eos_token_id") ? config["eos_token_id"] : Json();
  if (ends.is_number_integer()) return {ends.get<int32_t>()};
  if (ends.is_array() && !ends.empty()) return ends.get<std::vector<int32_t>>();
  if (const std::optional<int32_t> end = tokenizer.eos_id()) return {*end};
  return {};
}

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& text) {
  const Encoding encoding = tokenizer.encode(text);
  std::vector<int32_t> ids = encoding.ids;
  size_t end = ids.size();
  while (end > 1 && encoding.special_mask[end - 1] != 0) --end;
  ids.resize(end);
  return ids;
}

std::vector<std::string> decoded_texts(Model& model, const Tokenizer& tokenizer,
                                       const std::vector<Example>& examples,
                                       int64_t max_new_tokens) {
  GenerateOptions options;
  options.max_new_tokens = max_new_tokens;
  options.eos = end_tokens(model.config(), tokenizer);
  const Json start = model.config().value("decoder_start_token_id", Json());
  if (start.is_number_integer()) options.decoder_start = start.get<int32_t>();
  std::vector<std::vector<int32_t>> prompts;
  for (const Example& example : examples) prompts.push_back(example.prompt);
  std::vector<std::string> texts;
  for (const std::vector<int32_t>& ids : generate(model, prompts, options))
    texts.push_back(tokenizer.decode(ids));
  return texts;
}

void check_decoder(const Model& model, const std::string& task) {
  if (model.find("enc.embed.tok") == nullptr) return;
  fail(ErrorCode::Unsupported,
       "task {}: this model is an encoder-decoder, and the task trains decoders; choose task "
       "seq2seq",
       task);
}

}  // namespace attune
