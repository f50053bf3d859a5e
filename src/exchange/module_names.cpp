#include "exchange/module_names.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace attune {

namespace {

std::string module_of(const WeightSlot& slot) {
  if (!slot.module.empty()) return slot.module;
  const std::string& name = slot.weight_name;
  return ends_with(name, ".weight") ? name.substr(0, name.size() - 7) : name;
}

bool is_tail(const std::string& name, const std::string& tail) {
  return name == tail || ends_with(name, "." + tail);
}

}  // namespace

ModuleNames::ModuleNames(const Model& model) {
  std::vector<int> seen;
  for (const Site& site : model.sites()) {
    if (site.kind != SiteKind::Weight || std::count(seen.begin(), seen.end(), site.storage) > 0)
      continue;
    seen.push_back(site.storage);
    modules_.push_back({module_of(model.slot(site)), site, true});
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
    if (module.name == name) return &module;
    if (!is_tail(module.name, name) && !is_tail(name, module.name)) continue;
    const size_t common = std::min(module.name.size(), name.size());
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
    if (module.site.storage == site.storage) return module;
  fail(ErrorCode::Internal, "site {} has no module", site.name);
}

std::string ModuleNames::bare(const Module& module) const {
  return module.in_base ? module.name.substr(prefix_.size()) : module.name;
}

}  // namespace attune
