#include "exchange/peft.h"

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "io/safetensors.h"
#include "tensor/torch.h"

namespace attune {

namespace {

std::string text_field(const Json& config, const char* key, const std::string& path) {
  if (!config.contains(key) || config.at(key).is_null()) return "";
  if (!config.at(key).is_string()) fail(ErrorCode::Corrupt, "{}: \"{}\" is not a text", path, key);
  return config.at(key).get<std::string>();
}

/// Rows of the saved classifier, 0 when none is saved.
int64_t saved_labels(const std::string& directory) {
  const std::string path = directory + "/adapter_model.safetensors";
  if (!file_exists(path)) return 0;
  const SafetensorsFile file(path);
  for (const char* leading : {"base_model.model.", "base_model."})  // the latter: prompts
    for (const char* name : {"classifier", "score"})
      for (const char* trailing : {".weight", ".modules_to_save.weight"}) {
        const std::string key = std::string(leading) + name + trailing;
        if (file.has(key) && file.info(key).shape.size() == 2) return file.info(key).shape[0];
      }
  return 0;
}

}  // namespace

bool is_peft(const std::string& directory) {
  const std::string path = directory + "/adapter_config.json";
  if (!file_exists(path)) return false;
  const Json config = read_json(path);
  return config.is_object() && config.contains("peft_type");
}

PeftCard read_peft_card(const std::string& directory) {
  const std::string path = directory + "/adapter_config.json";
  PeftCard card;
  card.config = read_json(path);
  if (!card.config.is_object() || !card.config.contains("peft_type"))
    fail(ErrorCode::Corrupt, "{}: the key \"peft_type\" is missing; this is not an adapter of PEFT",
         path);
  card.base_model = text_field(card.config, "base_model_name_or_path", path);
  card.task_type = text_field(card.config, "task_type", path);
  if (card.task_type == "SEQ_CLS") {
    card.head.kind = HeadKind::Sequence;
    card.head.pool = "own";
  }
  if (card.task_type == "TOKEN_CLS") card.head.kind = HeadKind::Token;
  if (card.task_type == "QUESTION_ANS") card.head.kind = HeadKind::Span;
  if (card.head.kind == HeadKind::Span) card.head.labels = 2;
  if (card.head.kind == HeadKind::Sequence || card.head.kind == HeadKind::Token)
    card.head.labels = saved_labels(directory);
  return card;
}

}  // namespace attune
