#include "tasks/generation.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
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
  read_defaults();
}

void GenerationTask::restore(const Json& state, const TaskContext& context) {
  TextTask::restore(state, context);
  read_defaults();
}

void GenerationTask::read_defaults() {
  if (context_.directory.empty()) return;  // asked for its head alone
  defaults_ = generation_defaults(read_json(context_.directory + "/config.json"),
                                  context_.directory, context_.tokenizer);
}

std::optional<int32_t> GenerationTask::end_token() const {
  if (defaults_.eos.empty()) return std::nullopt;
  return defaults_.eos.front();
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
  for (const std::string& text : decoded_texts(model, examples, 0))
    result.push_back(Json{{"text", text}});
  return result;
}

GenerationDefaults generation_defaults(const Json& config, const std::string& directory,
                                       const Tokenizer* tokenizer) {
  Json own = Json::object();
  if (const std::string path = directory + "/generation_config.json";
      !directory.empty() && file_exists(path))
    own = read_json(path);
  const auto said = [&](const char* name) {
    const Json first = own.value(name, Json());
    return first.is_null() ? config.value(name, Json()) : first;
  };
  GenerationDefaults defaults;
  const Json ends = said("eos_token_id"), start = said("decoder_start_token_id");
  if (ends.is_number_integer()) {
    defaults.eos = {ends.get<int32_t>()};
  } else if (ends.is_array()) {
    defaults.eos = ends.get<std::vector<int32_t>>();
  } else if (tokenizer != nullptr && tokenizer->eos_id()) {
    defaults.eos = {*tokenizer->eos_id()};
  }
  if (start.is_number_integer()) {
    defaults.decoder_start = start.get<int32_t>();
  } else if (const Json padding = said("pad_token_id"); padding.is_number_integer()) {
    defaults.decoder_start = padding.get<int32_t>();
  }
  return defaults;
}

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const std::string& text) {
  const Encoding encoding = tokenizer.encode(text);
  std::vector<int32_t> ids = encoding.ids;
  size_t end = ids.size();
  while (end > 1 && encoding.special_mask[end - 1] != 0) --end;
  ids.resize(end);
  return ids;
}

std::vector<std::string> GenerationTask::decoded_texts(Model& model,
                                                       const std::vector<Example>& examples,
                                                       int64_t tokens) const {
  GenerateOptions options;
  options.max_new_tokens = std::max(tokens, kPredictedTokens);
  options.eos = defaults_.eos;
  options.decoder_start = defaults_.decoder_start;
  std::vector<std::vector<int32_t>> prompts;
  for (const Example& example : examples) prompts.push_back(example.prompt);
  std::vector<std::string> texts;
  for (const std::vector<int32_t>& ids : generate(model, prompts, options))
    texts.push_back(context_.tokenizer->text(ids));
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
