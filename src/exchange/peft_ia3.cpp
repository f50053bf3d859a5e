// IA3: learned factors of a projection's outputs or, where it is feed-forward, inputs (ours: ia3).
#include <algorithm>
#include <set>

#include "base/text.h"
#include "exchange/peft_type.h"
#include "exchange/regex.h"
#include "tensor/torch.h"

namespace attune {
namespace {

bool is_feedforward(const PeftConfig& config, const std::string& module) {
  if (config.is_text("feedforward_modules"))
    return regex_full_match(config.text("feedforward_modules", ""), module,
                            config.path() + ": feedforward_modules");
  const std::vector<std::string> names = config.texts("feedforward_modules");
  // Any ending counts here, not only whole parts of the name.
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return ends_with(module, name); });
}

std::vector<PeftTuner> load_ia3(PeftSource& source) {
  PeftTuner tuner{"ia3", Json{{"sites", Json::array()}, {"feedforward", Json::array()}}};
  for (const PeftModule& module : source.modules) {
    const Site& site = module.site;
    const bool inputs = is_feedforward(source.config, module.name);
    tuner.act_at(site);
    if (inputs) tuner.options["feedforward"].push_back(site.name);
    const Tensor scale = inputs ? source.part(module, "ia3_l", {1, site.in})
                                : source.part(module, "ia3_l", {site.out, 1});
    tuner.set(site, "scale", scale.reshape({-1}));
  }
  return {tuner};
}

PeftPiece save_ia3(const PeftView& view) {
  PeftPiece piece{"IA3"};
  piece.config = Json{{"init_ia3_weights", true}, {"fan_in_fan_out", false}};
  for (const std::pair<int, Edit>& entry : view.recorder().edits()) {
    const Site& site = view.model().sites()[static_cast<size_t>(entry.first)];
    const bool inputs = std::get<Scale>(entry.second).in.defined();
    const Tensor scale = view.tensor(site, "scale");
    piece.updates.push_back({site,
                             Json{{"inputs", inputs}},
                             {{"ia3_l", scale.reshape({inputs ? 1 : -1, inputs ? -1 : 1})}}});
  }
  return piece;
}

/// Endings that say which of the modules are feed-forward, or their whole names.
void describe(const PeftPiece& piece, const std::vector<std::string>& names, Json& config) {
  std::set<std::string> short_names, full_names;
  bool usable = true;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!piece.updates[i].own.at("inputs").get<bool>()) continue;
    full_names.insert(names[i]);
    const size_t dot = names[i].rfind('.');
    const size_t before = dot == std::string::npos ? dot : names[i].rfind('.', dot - 1);
    short_names.insert(before == std::string::npos ? names[i] : names[i].substr(before + 1));
  }
  for (size_t i = 0; i < names.size(); ++i)
    for (const std::string& name : short_names)
      if (ends_with(names[i], name) && full_names.count(names[i]) == 0) usable = false;
  config["feedforward_modules"] = usable ? short_names : full_names;
}

}  // namespace

PeftType peft_ia3() {
  PeftType type;
  type.name = "IA3";
  type.methods = {"ia3"};
  type.fields = {"feedforward_modules", "init_ia3_weights"};
  type.parts = {"ia3_l"};
  type.load = load_ia3;
  type.save = save_ia3;
  type.describe = describe;
  return type;
}

}  // namespace attune
