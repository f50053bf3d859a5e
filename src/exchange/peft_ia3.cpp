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

/// PEFT asks that feedforward_modules be a subset of target_modules as they are written, and takes
/// a module for feed-forward when its name ends with one of them: the targets that name only such
/// modules, or whole names where that does not tell them apart.
void describe(const PeftPiece& piece, const std::vector<std::string>& names, Json& config) {
  const auto inputs = [&](size_t i) { return piece.updates[i].own.at("inputs").get<bool>(); };
  std::set<std::string> chosen, whole;
  for (const Json& entry : config.at("target_modules"))
    for (size_t i = 0; i < names.size(); ++i)
      if (inputs(i) && ends_with(names[i], entry.get<std::string>()))
        chosen.insert(entry.get<std::string>());
  bool usable = true;
  for (size_t i = 0; i < names.size(); ++i) {
    if (inputs(i)) whole.insert(names[i]);
    for (const std::string& name : chosen)
      if (!inputs(i) && ends_with(names[i], name)) usable = false;
  }
  if (!usable) config["target_modules"] = names;
  config["feedforward_modules"] = usable ? chosen : whole;
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
