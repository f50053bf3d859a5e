// C3A: circulant blocks (ours: c3a).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_c3a(PeftSource& source) {
  std::vector<PeftTuner> tuners;
  const ModuleGroups groups = source.grouped("block_size", 256);
  for (const std::pair<const int64_t, std::vector<const PeftModule*>>& group : groups) {
    const int64_t block = group.first;
    PeftTuner tuner{"c3a", Json{{"sites", Json::array()}, {"block_size", block}}};
    for (const PeftModule* module : group.second) {
      const Site& site = module->site;
      tuner.act_at(site);
      tuner.set(site, "kernels",
                source.part(*module, "c3a_kernel", {site.out / block, site.in / block, block}));
    }
    tuners.push_back(std::move(tuner));
  }
  return tuners;
}

PeftPiece save_c3a(const PeftView& view) {
  PeftPiece piece{"C3A"};
  piece.config = Json{{"init_weights", "xavier_uniform"}};
  for (const Site& site : view.sites()) {
    const Tensor kernels = view.tensor(site, "kernels");
    piece.updates.push_back(
        {site, Json{{"block_size", kernels.size(2)}}, {{"c3a_kernel", kernels}}});
  }
  return piece;
}

}  // namespace

PeftType peft_c3a() {
  PeftType type;
  type.name = "C3A";
  type.methods = {"c3a"};
  type.fields = {"block_size", "init_weights"};
  type.parts = {"c3a_kernel"};
  type.patterns = {{"block_size", "block_size_pattern"}};
  type.match = PeftConfig::Match::Tail;
  type.bias_only = "c3a_only";
  type.load = load_c3a;
  type.save = save_c3a;
  return type;
}

}  // namespace attune
