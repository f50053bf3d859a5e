// MISS: one small matrix for every shard of a projection's inputs (ours: miss).
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_miss(PeftSource& source) {
  const PeftConfig& config = source.config;
  // The way to begin is also the variant.
  std::string variant = "balance";
  if (config.is_text("init_weights")) variant = config.text("init_weights", "");
  if (variant != "balance" && variant != "bat" && variant != "mini")
    config.refuse("init_weights", "known: true, false, \"bat\", \"mini\"");
  const int64_t rank = config.positive("r", 64), mini = config.positive("mini_r", 1);
  PeftTuner tuner{"miss", Json{{"sites", Json::array()}, {"rank", rank}, {"variant", variant}}};
  if (variant == "mini") tuner.options["mini_rank"] = mini;
  if (variant != "bat") tuner.options["dropout"] = config.number("miss_dropout", 0);
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    tuner.act_at(site);
    if (variant == "bat") {
      tuner.set(site, "blocks", source.part(module, "miss_block", {site.out / rank, rank, rank}));
      continue;
    }
    const int64_t columns = variant == "mini" ? mini : site.out;
    tuner.set(site, "up", source.part(module, "miss_block", {rank, columns}).t());
  }
  return {tuner};
}

PeftPiece save_miss(const PeftView& view) {
  PeftPiece piece{"MISS"};
  const Json& options = view.options();
  const std::string variant = options.at("variant").get<std::string>();
  piece.config = Json{{"r", options.at("rank")},
                      {"mini_r", options.at("mini_rank")},
                      {"miss_dropout", options.at("dropout")},
                      {"init_weights", variant == "balance" ? Json(true) : Json(variant)}};
  for (const Site& site : view.sites()) {
    const Tensor block =
        variant == "bat" ? view.tensor(site, "blocks") : view.tensor(site, "up").t();
    piece.updates.push_back({site, Json::object(), {{"miss_block", block}}});
  }
  return piece;
}

}  // namespace

PeftType peft_miss() {
  PeftType type;
  type.name = "MISS";
  type.methods = {"miss"};
  type.fields = {"r", "mini_r", "miss_dropout", "init_weights"};
  type.parts = {"miss_block"};
  type.bias_only = "MiSS_only";
  type.load = load_miss;
  type.save = save_miss;
  return type;
}

}  // namespace attune
