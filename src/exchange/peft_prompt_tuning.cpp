// PROMPT_TUNING: trained rows in front of the token embeddings (ours: prompt).
#include "exchange/peft_prompts.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_prompt_tuning(PeftSource& source) {
  return prompt_tuners(source, "prompt", Json{{"init", "random"}}, "prompt");
}

PeftPiece save_prompt_tuning(const PeftView& view) {
  return prompt_piece(view, "PROMPT_TUNING", Json{{"prompt_tuning_init", "RANDOM"}});
}

}  // namespace

PeftType peft_prompt_tuning() {
  PeftType type;
  type.name = "PROMPT_TUNING";
  type.methods = {"prompt"};
  type.fields = prompt_fields({"prompt_tuning_init", "prompt_tuning_init_text",
                               "tokenizer_name_or_path", "tokenizer_kwargs"});
  type.shared = {kPromptTensor};
  type.prompts = true;
  type.load = load_prompt_tuning;
  type.save = save_prompt_tuning;
  return type;
}

}  // namespace attune
