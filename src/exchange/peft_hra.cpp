// HRA: Householder reflections of a projection's inputs (ours: hra).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_hra(PeftSource& source) {
  const int64_t rank = source.config.positive("r", 8);
  PeftTuner tuner{"hra", Json{{"sites", Json::array()},
                              {"rank", rank},
                              {"gram_schmidt", source.config.flag("apply_GS", false)}}};
  for (const PeftModule& module : source.modules) {
    tuner.act_at(module.site);
    tuner.set(module.site, "u", source.part(module, "hra_u", {module.site.in, rank}));
  }
  return {tuner};
}

PeftPiece save_hra(const PeftView& view) {
  PeftPiece piece{"HRA"};
  piece.config = Json{{"r", view.options().at("rank")},
                      {"apply_GS", view.options().at("gram_schmidt")},
                      {"init_weights", true}};
  for (const Site& site : view.sites())
    piece.updates.push_back({site, Json::object(), {{"hra_u", view.tensor(site, "u")}}});
  return piece;
}

}  // namespace

PeftType peft_hra() {
  PeftType type;
  type.name = "HRA";
  type.methods = {"hra"};
  type.fields = {"r", "apply_GS", "init_weights"};
  type.parts = {"hra_u"};
  type.bias_only = "hra_only";
  type.load = load_hra;
  type.save = save_hra;
  return type;
}

}  // namespace attune
