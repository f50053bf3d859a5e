// ADALORA: low-rank updates with singular values (ours: adalora).
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Which singular values of a module are in the file: rank_pattern has a list a module that lost
/// some, under the name of its lora_E.
std::vector<int64_t> kept_values(const PeftConfig& config, const std::string& module,
                                 int64_t initial) {
  std::vector<int64_t> kept;
  const std::string wanted = module + ".lora_E";
  for (const std::pair<std::string, Json>& entry : config.entries("rank_pattern")) {
    if (entry.first != wanted && entry.first != wanted + ".default") continue;
    if (!entry.second.is_array() || static_cast<int64_t>(entry.second.size()) != initial)
      config.wrong("rank_pattern");
    for (int64_t i = 0; i < initial; ++i) {
      const Json& value = entry.second[static_cast<size_t>(i)];
      if (!value.is_boolean()) config.wrong("rank_pattern");
      if (value.get<bool>()) kept.push_back(i);
    }
    return kept;
  }
  for (int64_t i = 0; i < initial; ++i) kept.push_back(i);
  return kept;
}

Json options_of(const PeftConfig& config, int64_t initial) {
  const double alpha = config.number("lora_alpha", 8);
  Json options{{"sites", Json::array()},
               {"rank", std::min(config.integer("target_r", 8), initial)},
               {"init_rank", initial},
               // A strength of zero or less stands for the rank.
               {"alpha", plain_number(alpha > 0 ? alpha : static_cast<double>(initial))},
               {"dropout", config.number("lora_dropout", 0)},
               {"beta1", config.number("beta1", 0.85)},
               {"beta2", config.number("beta2", 0.85)},
               {"orthogonal", config.number("orth_reg_weight", 0.5)},
               {"interval", std::max<int64_t>(1, config.integer("deltaT", 1))}};
  if (const int64_t total = config.integer("total_step", 0); total > 0) {
    options["total_steps"] = total;
    options["t_init"] = config.integer("tinit", 0);
    options["t_final"] = config.integer("tfinal", 0);
  }
  return options;
}

std::vector<PeftTuner> load_adalora(PeftSource& source) {
  const int64_t initial = source.config.positive("init_r", 12);
  PeftTuner tuner{"adalora", options_of(source.config, initial)};
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    const std::vector<int64_t> kept = kept_values(source.config, module.name, initial);
    const int64_t rank = static_cast<int64_t>(kept.size());
    const Tensor at = int64_tensor(kept);
    // Values that lost their place are zero; their vectors are not in the file.
    const auto spread = [&](const Tensor& value, int64_t dim) {
      std::vector<int64_t> sizes = value.sizes().vec();
      sizes[static_cast<size_t>(dim)] = initial;
      return at::zeros(sizes, value.options()).index_copy(dim, at, value);
    };
    tuner.act_at(site);
    tuner.set(site, "q", spread(source.part(module, "lora_A", {rank, site.in}), 0));
    tuner.set(site, "p", spread(source.part(module, "lora_B", {site.out, rank}), 1));
    tuner.set(site, "e", spread(source.part(module, "lora_E", {rank, 1}).reshape({-1}), 0));
  }
  return {tuner};
}

PeftPiece save_adalora(const PeftView& view) {
  PeftPiece piece{"ADALORA"};
  const Json& options = view.options();
  const bool steps = options.at("total_steps").is_number();
  piece.config = Json{{"init_r", options.at("init_rank")},
                      {"target_r", options.at("rank")},
                      {"lora_alpha", options.at("alpha")},
                      {"lora_dropout", options.at("dropout")},
                      {"beta1", options.at("beta1")},
                      {"beta2", options.at("beta2")},
                      {"deltaT", options.at("interval")},
                      {"orth_reg_weight", options.at("orthogonal")},
                      // PEFT wants a schedule in steps, even of an adapter that is done.
                      {"total_step", steps ? options.at("total_steps") : Json(1)},
                      {"tinit", 0},
                      {"tfinal", 0},
                      {"init_lora_weights", true},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites())
    piece.updates.push_back({site,
                             Json::object(),
                             {{"lora_A", view.tensor(site, "q")},
                              {"lora_B", view.tensor(site, "p")},
                              {"lora_E", view.tensor(site, "e").reshape({-1, 1})}}});
  return piece;
}

}  // namespace

PeftType peft_adalora() {
  PeftType type;
  type.name = "ADALORA";
  type.methods = {"adalora"};
  type.fields = {"r",          "lora_alpha",    "lora_dropout",  "init_lora_weights",
                 "init_r",     "target_r",      "rank_pattern",  "orth_reg_weight",
                 "tinit",      "tfinal",        "deltaT",        "total_step",
                 "beta1",      "beta2",         "megatron_core", "qalora_group_size",
                 "eva_config", "runtime_config"};
  type.parts = {"lora_A", "lora_B", "lora_E"};
  type.bias_only = "lora_only";
  type.load = load_adalora;
  type.save = save_adalora;
  return type;
}

}  // namespace attune
