// LORA: low-rank updates of projections and embeddings (ours: lora), and with use_dora of the
// direction of projections (ours: dora). The factors of a convolution have its shape: A
// [r, channels, height, width], B [O, r, 1, 1], and a magnitude [1, O, 1, 1].
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

bool is_table(const Site& site) {
  return site.weight == WeightKind::Table;
}

constexpr const char* kUpBias = "lora_B.bias";

using Shape = std::vector<int64_t>;

/// The shape of the weight of a convolution that is a product here; empty for a plain one.
const Shape& kernel_of(const Model& model, const Site& site) {
  return model.slot(site).stored;
}
Shape down_shape(const Shape& kernel, int64_t rank) {
  Shape shape = kernel;
  shape[0] = rank;
  return shape;
}
/// [a, b, 1, 1]
Shape point_shape(const Shape& kernel, int64_t a, int64_t b) {
  Shape shape(kernel.size(), 1);
  shape[0] = a;
  shape[1] = b;
  return shape;
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

/// A factor in the shape that it has here; `kernel` is that of a convolution's.
Tensor factor(PeftSource& source, const PeftModule& module, const char* part, const Shape& plain,
              const Shape& kernel) {
  const bool flat = kernel.empty() || (module.has(part) && module.parts.at(part).dim() < 4);
  return source.part(module, part, flat ? plain : kernel).reshape(plain);
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
  const Shape& kernel = kernel_of(source.model, site);
  const bool plain = kernel.empty();
  tuner.set(
      site, "down",
      factor(source, module, down, {rank, site.in}, plain ? kernel : down_shape(kernel, rank)));
  tuner.set(site, "up",
            factor(source, module, up, {site.out, rank},
                   plain ? kernel : point_shape(kernel, site.out, rank)));
  if (dora)
    tuner.set(site, "magnitude",
              factor(source, module, "lora_magnitude_vector", {site.out},
                     plain ? kernel : point_shape(kernel, 1, site.out)));
  if (tuner.options.contains("up_bias"))
    tuner.set(site, "up_bias", source.part(module, kUpBias, {site.out}));
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
  if (source.config.flag("lora_bias", false)) {
    if (dora) source.config.refuse("lora_bias", "PEFT does not know it beside use_dora");
    tuner.options["up_bias"] = true;
  }
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
    if (update.parts.count(kUpBias) > 0) update.parts[kUpBias] = update.parts[kUpBias] * before;
    update.own = Json{{"r", update.parts[a].size(0)}, {kScale, 1.0}};
    return;
  }
  // PEFT does not allow a strength of zero or less, which lies in the factor then.
  const bool odd = !(scale > 0);
  piece.updates.push_back({site,
                           Json{{"r", down.size(0)}, {kScale, odd ? 1.0 : scale}},
                           {{a, down}, {b, odd ? up * scale : up}}});
}

/// A bias of B's, scaled with it by `scale`, joins the update of its site.
void add_up_bias(PeftUpdate& update, const Tensor& bias, double scale) {
  const Tensor own = bias * (scale / update.own[kScale].get<double>());
  Tensor& all = update.parts[kUpBias];
  all = all.defined() ? all + own : own;
}

/// Factors of a convolution in its shape.
void shape_for(const Model& model, const Site& site, Tensor& down, Tensor& up) {
  const Shape& kernel = kernel_of(model, site);
  if (kernel.empty()) return;
  down = down.reshape(down_shape(kernel, down.size(0)));
  up = up.reshape(point_shape(kernel, up.size(0), up.size(1)));
}

/// Any method of ours whose edits are all low-rank updates.
PeftPiece save_lora(const PeftView& view) {
  PeftPiece piece{"LORA"};
  double dropout = 0, scale = 1;
  for (const std::pair<int, Edit>& entry : view.recorder().edits()) {
    const Site& site = view.model().sites()[static_cast<size_t>(entry.first)];
    const LowRank* low = std::get_if<LowRank>(&entry.second);
    if (std::holds_alternative<Shift>(entry.second) && view.owns(site, "up_bias")) {
      for (PeftUpdate& update : piece.updates)
        if (update.site.id == site.id) add_up_bias(update, view.tensor(site, "up_bias"), scale);
      continue;
    }
    if (low == nullptr || low->gate)
      cannot_export(
          view, "LORA",
          format("it uses {}{} at {}, for which LORA has no form", verb_name(entry.second),
                 low != nullptr ? " with a gate" : "", site.name));
    Tensor down = low->down.detach().to(at::kFloat), up = low->up.detach().to(at::kFloat);
    shape_for(view.model(), site, down, up);
    scale = low->scale;
    add_update(piece, site, down, up, scale);
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
    Tensor down = view.tensor(site, "down"), up = view.tensor(site, "up");
    const Tensor magnitude = view.tensor(site, "magnitude");
    shape_for(view.model(), site, down, up);
    const double rank = static_cast<double>(down.size(0));
    const double scale = view.by_pattern("alpha", site) / (rslora ? std::sqrt(rank) : rank);
    add_update(piece, site, down, up, scale);
    const Shape& kernel = kernel_of(view.model(), site);
    piece.updates.back().parts["lora_magnitude_vector"] =
        kernel.empty() ? magnitude : magnitude.reshape(point_shape(kernel, 1, site.out));
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
    if (update.parts.count(kUpBias) > 0)
      for (PeftUpdate& joined : first.updates)
        if (joined.site.id == update.site.id)
          add_up_bias(joined, update.parts.at(kUpBias), update.own[kScale].get<double>());
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

/// PEFT's updates have all a bias, or none.
void finish_up_biases(PeftPiece& piece) {
  const auto has = [](const PeftUpdate& update) { return update.parts.count(kUpBias) > 0; };
  if (std::none_of(piece.updates.begin(), piece.updates.end(), has)) return;
  piece.config["lora_bias"] = true;
  for (PeftUpdate& update : piece.updates) {
    if (is_table(update.site))
      fail(ErrorCode::Unsupported,
           "exporting to PEFT's LORA: an update of {} beside others with up_bias: PEFT's "
           "embeddings have none and its lora_bias is one for all; merge the adapter and export "
           "the model (`attune export --to hf`)",
           update.site.name);
    if (!has(update)) update.parts[kUpBias] = at::zeros({update.site.out});
  }
}

void finish_lora(PeftPiece& piece) {
  finish_up_biases(piece);
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
                 "lora_bias",
                 "trainable_token_indices"};
  type.parts = {"lora_A.weight",         "lora_B.weight",    kUpBias,
                "lora_magnitude_vector", "lora_embedding_A", "lora_embedding_B"};
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
