// LOKR: Kronecker products (ours: lokr).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// The two factors, each whole or as a product: our name, PEFT's.
struct Factor {
  const char* ours;
  const char* theirs;
};
constexpr Factor kFactors[] = {{"w1", "lokr_w1"}, {"w1_a", "lokr_w1_a"}, {"w1_b", "lokr_w1_b"},
                               {"w2", "lokr_w2"}, {"w2_a", "lokr_w2_a"}, {"w2_b", "lokr_w2_b"}};

Json options_of(const PeftConfig& config) {
  const bool lycoris = config.is_text("init_weights");
  return Json{{"sites", Json::array()},
              {"rank", config.positive("r", 8)},
              {"alpha", plain_number(config.number("alpha", 8))},
              {"decompose_both", config.flag("decompose_both", false)},
              {"decompose_factor", config.integer("decompose_factor", -1)},
              {"init", lycoris ? "lycoris" : "default"},
              {"rank_dropout", config.number("rank_dropout", 0)},
              {"rank_dropout_scale", config.flag("rank_dropout_scale", false)},
              {"module_dropout", config.number("module_dropout", 0)}};
}

std::vector<PeftTuner> load_lokr(PeftSource& source) {
  PeftTuner tuner{"lokr", options_of(source.config)};
  for (const PeftModule& module : source.modules) {
    source.by_pattern(tuner, module);
    tuner.act_at(module.site);
    // Which factors are products follows from the sizes; the method checks that they are these.
    for (const Factor& factor : kFactors)
      if (module.has(factor.theirs))
        tuner.set(module.site, factor.ours, source.part(module, factor.theirs, {-1, -1}));
  }
  return {tuner};
}

PeftPiece save_lokr(const PeftView& view) {
  PeftPiece piece{"LOKR"};
  const Json& options = view.options();
  piece.config = Json{{"decompose_both", options.at("decompose_both")},
                      {"decompose_factor", options.at("decompose_factor")},
                      {"rank_dropout", options.at("rank_dropout")},
                      {"rank_dropout_scale", options.at("rank_dropout_scale")},
                      {"module_dropout", options.at("module_dropout")},
                      {"init_weights", true}};
  for (const Site& site : view.sites()) {
    PeftUpdate update{site};
    update.own = Json{{"r", static_cast<int64_t>(view.by_pattern("rank", site))},
                      {"alpha", plain_number(view.by_pattern("alpha", site))}};
    for (const Factor& factor : kFactors)
      if (view.owns(site, factor.ours))
        update.parts[factor.theirs] = view.tensor(site, factor.ours);
    piece.updates.push_back(std::move(update));
  }
  return piece;
}

}  // namespace

PeftType peft_lokr() {
  PeftType type;
  type.name = "LOKR";
  type.methods = {"lokr"};
  // use_effective_conv2d is about convolutions, which these are not.
  type.fields = {"r",
                 "alpha",
                 "decompose_both",
                 "decompose_factor",
                 "rank_dropout",
                 "rank_dropout_scale",
                 "module_dropout",
                 "init_weights",
                 "use_effective_conv2d"};
  for (const Factor& factor : kFactors) type.parts.emplace_back(factor.theirs);
  type.patterns = {{"r", "rank_pattern"}, {"alpha", "alpha_pattern"}};
  type.load = load_lokr;
  type.save = save_lokr;
  return type;
}

}  // namespace attune
