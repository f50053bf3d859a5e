// LOHA: the elementwise product of two low-rank matrices (ours: loha).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_loha(PeftSource& source) {
  const PeftConfig& config = source.config;
  PeftTuner tuner{"loha", Json{{"sites", Json::array()},
                               {"rank", config.positive("r", 8)},
                               {"alpha", plain_number(config.number("alpha", 8))},
                               {"rank_dropout", config.number("rank_dropout", 0)},
                               {"module_dropout", config.number("module_dropout", 0)}}};
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    const int64_t rank = source.by_pattern(tuner, module);
    tuner.act_at(site);
    tuner.set(site, "w1_a", source.part(module, "hada_w1_a", {site.out, rank}));
    tuner.set(site, "w1_b", source.part(module, "hada_w1_b", {rank, site.in}));
    tuner.set(site, "w2_a", source.part(module, "hada_w2_a", {site.out, rank}));
    tuner.set(site, "w2_b", source.part(module, "hada_w2_b", {rank, site.in}));
  }
  return {tuner};
}

PeftPiece save_loha(const PeftView& view) {
  PeftPiece piece{"LOHA"};
  piece.config = Json{{"rank_dropout", view.options().at("rank_dropout")},
                      {"module_dropout", view.options().at("module_dropout")},
                      {"init_weights", true}};
  for (const Site& site : view.sites()) {
    const Tensor w1_b = view.tensor(site, "w1_b");
    piece.updates.push_back(
        {site,
         Json{{"r", w1_b.size(0)}, {"alpha", plain_number(view.by_pattern("alpha", site))}},
         {{"hada_w1_a", view.tensor(site, "w1_a")},
          {"hada_w1_b", w1_b},
          {"hada_w2_a", view.tensor(site, "w2_a")},
          {"hada_w2_b", view.tensor(site, "w2_b")}}});
  }
  return piece;
}

}  // namespace

PeftType peft_loha() {
  PeftType type;
  type.name = "LOHA";
  type.methods = {"loha"};
  // use_effective_conv2d is about convolutions, which these are not.
  type.fields = {
      "r", "alpha", "rank_dropout", "module_dropout", "init_weights", "use_effective_conv2d"};
  type.parts = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"};
  type.patterns = {{"r", "rank_pattern"}, {"alpha", "alpha_pattern"}};
  type.load = load_loha;
  type.save = save_loha;
  return type;
}

}  // namespace attune
