// P_TUNING: rows in front of the token embeddings that a network made; files hold the rows (ours:
// p_tuning).
#include "exchange/peft_prompts.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_p_tuning(PeftSource& source) {
  return prompt_tuners(source, "p_tuning", Json{{"encoder", "none"}}, "embedding");
}

PeftPiece save_p_tuning(const PeftView& view) {
  const Json& options = view.options();
  const Site& site = prompt_site(view.model(), view.recorder().method());
  const int64_t hidden = options.at("hidden").get<int64_t>();
  return prompt_piece(
      view, "P_TUNING",
      Json{{"encoder_reparameterization_type", options.at("encoder") == "lstm" ? "LSTM" : "MLP"},
           {"encoder_hidden_size", hidden > 0 ? hidden : site.out},
           {"encoder_num_layers", options.at("layers")},
           {"encoder_dropout", 0.0}});
}

}  // namespace

PeftType peft_p_tuning() {
  PeftType type;
  type.name = "P_TUNING";
  type.methods = {"p_tuning"};
  type.fields = prompt_fields({"encoder_reparameterization_type", "encoder_hidden_size",
                               "encoder_num_layers", "encoder_dropout"});
  type.shared = {kPromptTensor};
  type.prompts = true;
  type.load = load_p_tuning;
  type.save = save_p_tuning;
  return type;
}

}  // namespace attune
