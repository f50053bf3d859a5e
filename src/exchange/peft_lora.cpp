// LORA: low-rank updates of projections and embeddings (ours: lora), and with use_dora of the
// direction of projections (ours: dora).
#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

bool is_table(const Site& site) {
  return site.weight == WeightKind::Table;
}

// ---- reading
// -------------------------------------------------------------------------------------

void check(const PeftSource& source) {
  const PeftConfig& config = source.config;
  if (config.flag("ensure_weight_tying", false))
    for (const PeftModule& module : source.modules)
      if (is_table(module.site) || module.site.name == "head.proj")
        config.refuse("ensure_weight_tying",
                      format("it ties the update of {} to another, and PEFT itself does not load "
                             "that as it was saved; merge the adapter there (merge_and_unload)",
                             module.name));
  if (!config.given("init_lora_weights")) return;
  // The others (pissa, olora, corda, loftq, ...) also change the base model's weights.
  const Json& init = config.json().at("init_lora_weights");
  const bool plain =
      init.is_boolean() || init == "gaussian" || init == "eva" || init == "orthogonal";
  if (!plain)
    config.refuse("init_lora_weights",
                  "it changed the base model's weights at the start; save it from PEFT as plain "
                  "LoRA (save_pretrained with path_initial_model_for_weight_conversion)");
}

void add_module(PeftSource& source, const PeftModule& module, bool dora, PeftTuner& tuner) {
  const Site& site = module.site;
  const bool table = is_table(site);
  if (table && dora)
    source.config.refuse("use_dora", format("DoRA of the embedding {} is not computed here; leave "
                                            "it out of target_modules",
                                            module.name));
  const int64_t rank = source.by_pattern(tuner, module);
  tuner.act_at(site);
  const char* down = table ? "lora_embedding_A" : "lora_A.weight";
  const char* up = table ? "lora_embedding_B" : "lora_B.weight";
  tuner.set(site, "down", source.part(module, down, {rank, site.in}));
  tuner.set(site, "up", source.part(module, up, {site.out, rank}));
  if (dora) tuner.set(site, "magnitude", source.part(module, "lora_magnitude_vector", {site.out}));
}

std::vector<PeftTuner> load_lora(PeftSource& source) {
  check(source);
  const bool dora = source.config.flag("use_dora", false);
  PeftTuner tuner{dora ? "dora" : "lora"};
  tuner.options["sites"] = Json::array();
  tuner.options["rank"] = source.config.positive("r", 8);
  tuner.options["alpha"] = plain_number(source.config.number("lora_alpha", 8));
  tuner.options["rslora"] = source.config.flag("use_rslora", false);
  const double dropout = source.config.number("lora_dropout", 0);
  if (!dora) tuner.options["dropout"] = dropout;
  for (const PeftModule& module : source.modules) add_module(source, module, dora, tuner);
  return {tuner};
}

// ---- writing
// -------------------------------------------------------------------------------------

/// A scale that a double holds; where `own` keeps it until the rank is final.
constexpr const char* kScale = "scale";

void add_update(PeftPiece& piece, const Site& site, const Tensor& down, const Tensor& up,
                double scale) {
  const bool table = is_table(site);
  const char* a = table ? "lora_embedding_A" : "lora_A.weight";
  const char* b = table ? "lora_embedding_B" : "lora_B.weight";
  for (PeftUpdate& update : piece.updates) {
    if (update.site.id != site.id) continue;
    // PEFT holds one update a module: two become one of the summed rank, scales inside.
    const double before = update.own[kScale].get<double>();
    update.parts[a] = at::cat({update.parts[a], down}, 0);
    update.parts[b] = at::cat({update.parts[b] * before, up * scale}, 1);
    update.own = Json{{"r", update.parts[a].size(0)}, {kScale, 1.0}};
    return;
  }
  // PEFT does not allow a strength of zero or less, which lies in the factor then.
  const bool odd = !(scale > 0);
  piece.updates.push_back({site,
                           Json{{"r", down.size(0)}, {kScale, odd ? 1.0 : scale}},
                           {{a, down}, {b, odd ? up * scale : up}}});
}

/// Any method of ours whose edits are all low-rank updates.
PeftPiece save_lora(const PeftView& view) {
  PeftPiece piece{"LORA"};
  double dropout = 0;
  for (const std::pair<int, Edit>& entry : view.recorder().edits()) {
    const Site& site = view.model().sites()[static_cast<size_t>(entry.first)];
    const LowRank* low = std::get_if<LowRank>(&entry.second);
    if (low == nullptr || low->gate)
      cannot_export(
          view, "LORA",
          format("it uses {}{} at {}, for which LORA has no form", verb_name(entry.second),
                 low != nullptr ? " with a gate" : "", site.name));
    add_update(piece, site, low->down.detach().to(at::kFloat), low->up.detach().to(at::kFloat),
               low->scale);
    dropout = std::max(dropout, low->dropout);
  }
  const bool rslora = view.method() == "lora" && view.options().value("rslora", false);
  piece.config = Json{{"lora_dropout", dropout}, {"use_rslora", rslora}, {"use_dora", false}};
  return piece;
}

PeftPiece save_dora(const PeftView& view) {
  PeftPiece piece{"LORA"};
  const bool rslora = view.options().at("rslora").get<bool>();
  piece.config = Json{{"lora_dropout", 0.0}, {"use_rslora", rslora}, {"use_dora", true}};
  for (const Site& site : view.sites()) {
    const Tensor down = view.tensor(site, "down");
    const double rank = static_cast<double>(down.size(0));
    const double scale = view.by_pattern("alpha", site) / (rslora ? std::sqrt(rank) : rank);
    add_update(piece, site, down, view.tensor(site, "up"), scale);
    piece.updates.back().parts["lora_magnitude_vector"] = view.tensor(site, "magnitude");
  }
  return piece;
}

bool overlap(const PeftPiece& a, const PeftPiece& b) {
  return std::any_of(b.updates.begin(), b.updates.end(),
                     [&](const PeftUpdate& update) { return a.find(update.site) != nullptr; });
}

/// Updates of one module add up, unless their magnitudes make them no longer sums.
bool join_updates(PeftPiece& first, const PeftPiece& next) {
  if (first.type != next.type || first.config["use_dora"] != next.config["use_dora"]) return false;
  if (first.config["use_dora"].get<bool>() && (overlap(first, next) || first.config != next.config))
    return false;
  const double a = first.config["lora_dropout"].get<double>();
  const double b = next.config["lora_dropout"].get<double>();
  if (a != b)
    first.notes.push_back(
        format("the updates have different dropout; PEFT holds one value, {} is written (it "
               "matters only when training goes on there)",
               std::max(a, b)));
  first.config["lora_dropout"] = std::max(a, b);
  if (first.config["use_rslora"] != next.config["use_rslora"]) first.config["use_rslora"] = false;
  for (const PeftUpdate& update : next.updates) {
    if (first.find(update.site) == nullptr) {
      first.updates.push_back(update);
      continue;
    }
    const bool table = is_table(update.site);
    add_update(first, update.site, update.parts.at(table ? "lora_embedding_A" : "lora_A.weight"),
               update.parts.at(table ? "lora_embedding_B" : "lora_B.weight"),
               update.own[kScale].get<double>());
    first.notes.push_back(format("two updates of {} are written as one of rank {}",
                                 update.site.name, first.find(update.site)->own["r"].dump()));
  }
  return true;
}

/// The alpha that gives exactly this scale when PEFT divides by the rank (or its root): a round
/// number when one does.
double alpha_for(double scale, double divisor) {
  const double alpha = scale * divisor;
  for (const double guess : {std::round(alpha), std::round(alpha * 1e6) / 1e6, alpha,
                             std::nextafter(alpha, 0.0), std::nextafter(alpha, 2 * alpha)})
    if (guess / divisor == scale) return guess;
  return alpha;
}

void finish_lora(PeftPiece& piece) {
  const bool rslora = piece.config["use_rslora"].get<bool>();
  for (PeftUpdate& update : piece.updates) {
    const double rank = update.own["r"].get<double>();
    const double alpha =
        alpha_for(update.own[kScale].get<double>(), rslora ? std::sqrt(rank) : rank);
    update.own = Json{{"r", update.own["r"]}, {"lora_alpha", plain_number(alpha)}};
  }
  // Fields that older releases do not know are written only when they matter.
  for (const char* field : {"use_rslora", "use_dora"})
    if (!piece.config[field].get<bool>()) piece.config.erase(field);
  piece.config["init_lora_weights"] = true;
  piece.config["fan_in_fan_out"] = false;
}

}  // namespace

PeftType peft_lora() {
  PeftType type;
  type.name = "LORA";
  type.methods = {"lora", "dora"};
  type.fields = {"r",
                 "lora_alpha",
                 "lora_dropout",
                 "use_rslora",
                 "use_dora",
                 "megatron_core",
                 "init_lora_weights",
                 "qalora_group_size",
                 "runtime_config",
                 "eva_config",
                 "ensure_weight_tying",
                 "trainable_token_indices"};
  type.parts = {"lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_embedding_A",
                "lora_embedding_B"};
  type.patterns = {{"r", "rank_pattern"}, {"lora_alpha", "alpha_pattern"}};
  type.bias_only = "lora_only";
  type.takes = [](const Site& site) {
    return site.weight == WeightKind::Projection || site.weight == WeightKind::Table;
  };
  type.load = load_lora;
  type.save = [](const PeftView& view) {
    return view.method() == "dora" ? save_dora(view) : save_lora(view);
  };
  type.join = join_updates;
  type.finish = finish_lora;
  return type;
}

}  // namespace attune
