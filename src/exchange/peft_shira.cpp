// SHIRA: a fixed sparse choice of a projection's entries (ours: shira).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_shira(PeftSource& source) {
  const int64_t rank = source.config.positive("r", 32);
  PeftTuner tuner{"shira", Json{{"sites", Json::array()}, {"rank", rank}}};
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    const int64_t entries = rank * (site.in + site.out);
    tuner.act_at(site);
    tuner.set(site, "values", source.part(module, "shira_weight", {entries}));
    // On Windows PEFT writes the positions as floating-point numbers.
    const Tensor positions = source.part(module, "shira_indices", {2, entries}, true).to(at::kLong);
    const Tensor limits = at::empty({2, 1}, at::kLong);
    limits.select(0, 0).fill_(site.out);
    limits.select(0, 1).fill_(site.in);
    if (!((positions >= 0) & (positions < limits)).all().item<bool>())
      source.corrupt(module, "shira_indices", "it names positions outside the weight");
    tuner.set(site, "positions", positions);
  }
  return {tuner};
}

PeftPiece save_shira(const PeftView& view) {
  PeftPiece piece{"SHIRA"};
  piece.config = Json{{"r", view.options().at("rank")},
                      {"mask_type", "random"},
                      {"init_weights", true},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites())
    piece.updates.push_back({site,
                             Json::object(),
                             {{"shira_weight", view.tensor(site, "values")},
                              {"shira_indices", view.tensor(site, "positions").to(at::kInt)}}});
  return piece;
}

}  // namespace

PeftType peft_shira() {
  PeftType type;
  type.name = "SHIRA";
  type.methods = {"shira"};
  type.fields = {"r", "mask_type", "random_seed", "init_weights"};
  type.parts = {"shira_weight", "shira_indices"};
  type.load = load_shira;
  type.save = save_shira;
  return type;
}

}  // namespace attune
