// LN_TUNING: whole copies of modules, meant for norms (ours: norms; full for other modules).
#include "base/text.h"
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_ln_tuning(PeftSource& source) {
  PeftTuner norms{"norms"}, whole{"full"};
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    PeftTuner& tuner = site.weight == WeightKind::Norm ? norms : whole;
    tuner.act_at(site);
    const std::vector<int64_t> shape = source.model.slot(site).shape();
    tuner.set(site, "weight", source.part(module, "ln_tuning_layers.weight", shape));
    if (site.bias)
      tuner.set(site, "bias", source.part(module, "ln_tuning_layers.bias", {site.out}));
  }
  std::vector<PeftTuner> result;
  for (PeftTuner* tuner : {&norms, &whole})
    if (!tuner->tensors.empty()) result.push_back(std::move(*tuner));
  return result;
}

PeftPiece save_ln_tuning(const PeftView& view) {
  PeftPiece piece{"LN_TUNING"};
  for (const Owned& owned : view.recorder().owned()) {
    const Site& site = view.model().sites()[static_cast<size_t>(owned.site)];
    if (!ends_with(owned.name, "/weight")) continue;
    PeftUpdate update{site};
    update.parts["ln_tuning_layers.weight"] = view.tensor(site, "weight");
    if (site.bias) update.parts["ln_tuning_layers.bias"] = view.tensor(site, "bias");
    piece.updates.push_back(std::move(update));
  }
  return piece;
}

}  // namespace

PeftType peft_ln_tuning() {
  PeftType type;
  type.name = "LN_TUNING";
  type.parts = {"ln_tuning_layers.weight", "ln_tuning_layers.bias"};
  type.takes = [](const Site& site) { return site.weight != WeightKind::Vector; };
  type.load = load_ln_tuning;
  type.save = save_ln_tuning;
  return type;
}

}  // namespace attune
