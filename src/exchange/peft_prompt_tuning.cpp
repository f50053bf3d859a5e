// PROMPT_TUNING: trained rows in front of the token embeddings (ours: prompt).
#include "exchange/peft_prompts.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_prompt_tuning(PeftSource& source) {
  const Site& site = prompt_site(source.model, source.where);
  const Tensor rows = prompt_rows(source, site);
  PeftTuner tuner{"prompt", Json{{"sites", Json::array()},
                                 {"length", rows.size(0)},
                                 {"init", "random"},
                                 {"pooled", true}}};
  tuner.act_at(site);
  tuner.set(site, "prompt", rows);
  return {tuner};
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
