#include "exchange/module_names.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace attune {

namespace {

using Renaming = std::pair<const char*, const char*>;

/// Parts of names that transformers changed in 2026 (ViT and those built like it): old, new.
/// Weight files mostly keep the old ones, adapters have those of the release they were made with.
constexpr std::array<Renaming, 7> kRenamed{{{"encoder.layer.", "layers."},
                                            {"attention.attention.query", "attention.q_proj"},
                                            {"attention.attention.key", "attention.k_proj"},
                                            {"attention.attention.value", "attention.v_proj"},
                                            {"attention.output.dense", "attention.o_proj"},
                                            {"intermediate.dense", "mlp.fc1"},
                                            {"output.dense", "mlp.fc2"}}};

bool is_renamed_family(const Model& model) {
  const std::string type = model.config().value("model_type", "");
  static const std::vector<std::string> families{"vit", "deit", "vit_mae", "vit_msn"};
  return std::count(families.begin(), families.end(), type) > 0;
}

std::string replaced(const std::string& name, bool to_newer) {
  std::string result = name;
  for (const Renaming& renaming : kRenamed) {
    const std::string from = to_newer ? renaming.first : renaming.second;
    const size_t at = result.find(from);
    const bool whole = at != std::string::npos && (at == 0 || result[at - 1] == '.');
    if (whole) result.replace(at, from.size(), to_newer ? renaming.second : renaming.first);
  }
  return result;
}

std::string module_of(const WeightSlot& slot) {
  if (!slot.module.empty()) return slot.module;
  const std::string& name = slot.weight_name;
  return ends_with(name, ".weight") ? name.substr(0, name.size() - 7) : name;
}

/// An output layer that shares the token table has no tensor in the file, yet is a module.
std::string tied_output(const Model& model) {
  const std::string type = model.config().value("model_type", "");
  return type == "bert" ? "cls.predictions.decoder" : "lm_head";
}

bool is_tail(const std::string& name, const std::string& tail) {
  return name == tail || ends_with(name, "." + tail);
}

/// How many characters of a module's name a given name fits; 0: it does not.
size_t common_tail(const std::string& module, const std::string& name) {
  if (!is_tail(module, name) && !is_tail(name, module)) return 0;
  return std::min(module.size(), name.size());
}

}  // namespace

ModuleNames::ModuleNames(const Model& model) {
  const bool renamed = is_renamed_family(model);
  for (const Site& site : model.sites()) {
    if (site.kind != SiteKind::Weight || site.copy_of >= 0) continue;
    bool seen = false, tied = false;
    for (Module& module : modules_) {
      if (module.site.storage != site.storage) continue;
      tied = true;
      if (module.site.weight != site.weight) continue;
      seen = true;
      ++module.uses;
    }
    if (seen) continue;
    const std::string name = tied ? tied_output(model) : module_of(model.slot(site));
    Module module{name, name, site, true};
    if (renamed) {
      module.name = replaced(name, false);
      module.newer = replaced(module.name, true);
    }
    modules_.push_back(std::move(module));
  }
  for (const Module& module : modules_) {
    if (starts_with(module.site.name, "head.")) continue;
    const std::string first = module.name.substr(0, module.name.find('.') + 1);
    if (prefix_.empty()) prefix_ = first;
    if (prefix_ != first) {
      prefix_.clear();
      break;
    }
  }
  for (Module& module : modules_)
    module.in_base = prefix_.empty() ? !starts_with(module.site.name, "head.")
                                     : starts_with(module.name, prefix_);
}

const ModuleNames::Module* ModuleNames::find(const std::string& name) const {
  const Module* best = nullptr;
  const Module* other = nullptr;
  size_t length = 0;
  for (const Module& module : modules_) {
    if (module.name == name || module.newer == name) return &module;
    const size_t common = std::max(common_tail(module.name, name), common_tail(module.newer, name));
    if (common == 0) continue;
    if (best != nullptr && common == length) other = &module;
    if (best != nullptr && common <= length) continue;
    best = &module;
    other = nullptr;
    length = common;
  }
  if (other != nullptr)
    fail(ErrorCode::BadInput, "the module name \"{}\" fits both {} and {} of this model", name,
         best->name, other->name);
  return best;
}

const ModuleNames::Module& ModuleNames::of(const Site& site) const {
  for (const Module& module : modules_)
    if (module.site.storage == site.storage && module.site.weight == site.weight) return module;
  fail(ErrorCode::Internal, "site {} has no module", site.name);
}

std::string ModuleNames::spelled(const Module& module, bool newer, bool bare) const {
  const std::string& name = newer ? module.newer : module.name;
  return bare && module.in_base ? name.substr(prefix_.size()) : name;
}

}  // namespace attune
