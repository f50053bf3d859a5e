#include "exchange/peft_type.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "tensor/torch.h"

namespace attune {

#define PEFT_TYPE(name) PeftType name();
#include "exchange/peft_types.def"
#undef PEFT_TYPE

std::vector<PeftType> peft_types() {
  std::vector<PeftType> types;
#define PEFT_TYPE(name) types.push_back(name());
#include "exchange/peft_types.def"
#undef PEFT_TYPE
  return types;
}

const PeftType* type_of_method(const std::vector<PeftType>& types, const std::string& method) {
  for (const PeftType& type : types)
    if (std::count(type.methods.begin(), type.methods.end(), method) > 0) return &type;
  return nullptr;
}

namespace {

void check_shape(const Tensor& value, const std::vector<int64_t>& shape, const std::string& where,
                 const std::string& key, bool integers = false) {
  bool fits =
      value.dim() == static_cast<int64_t>(shape.size()) && (integers || value.is_floating_point());
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = shape[i] < 0 || value.size(static_cast<int64_t>(i)) == shape[i];
  if (!fits)
    fail(ErrorCode::Corrupt, "{}: tensor {} has shape [{}], but config and model need {} [{}]",
         where, key, fmt::join(value.sizes().vec(), ", "), integers ? "integers" : "floating-point",
         fmt::join(shape, ", "));
}

}  // namespace

Tensor PeftSource::part(const PeftModule& module, const std::string& part,
                        const std::vector<int64_t>& shape, bool integers) {
  const std::string key = "base_model.model." + module.name + "." + part;
  const std::map<std::string, Tensor>::const_iterator it = module.parts.find(part);
  if (it == module.parts.end())
    fail(ErrorCode::Corrupt, "{}: tensor {} is missing; {} makes {} a target", where, key,
         config.path(), module.name);
  check_shape(it->second, shape, where, key, integers);
  used_.insert(key);
  return it->second;
}

Tensor PeftSource::shared_tensor(const std::string& key, const std::vector<int64_t>& shape) {
  const std::map<std::string, Tensor>::const_iterator it = shared.find(key);
  if (it == shared.end())
    fail(ErrorCode::Corrupt, "{}: tensor {} is missing; {} says that it is saved", where, key,
         config.path());
  check_shape(it->second, shape, where, key);
  used_.insert(key);
  return it->second;
}

int64_t PeftSource::by_pattern(PeftTuner& tuner, const PeftModule& module) const {
  const int64_t common = tuner.options.at("rank").get<int64_t>();
  const double strength = tuner.options.at("alpha").get<double>();
  const int64_t rank = static_cast<int64_t>(
      config.by_pattern("rank_pattern", module.name, static_cast<double>(common)));
  const double alpha = config.by_pattern("alpha_pattern", module.name, strength);
  if (rank != common) tuner.options["rank_pattern"][module.site.name] = rank;
  if (alpha != strength) tuner.options["alpha_pattern"][module.site.name] = plain_number(alpha);
  return rank;
}

ModuleGroups PeftSource::grouped(const std::string& field, int64_t fallback) const {
  const std::string pattern = field + "_pattern";
  const double common = static_cast<double>(config.positive(field.c_str(), fallback));
  ModuleGroups groups;
  for (const PeftModule& module : modules) {
    const int64_t size = static_cast<int64_t>(
        config.by_pattern(pattern.c_str(), module.name, common, PeftConfig::Match::Tail));
    if (size < 1) config.wrong(pattern.c_str());
    groups[size].push_back(&module);
  }
  return groups;
}

void PeftSource::corrupt(const PeftModule& module, const std::string& part,
                         const std::string& what) const {
  fail(ErrorCode::Corrupt, "{}: tensor base_model.model.{}.{}: {}", where, module.name, part, what);
}

void PeftSource::check_all_used() const {
  std::vector<std::string> extra;
  for (const std::pair<const std::string, Tensor>& entry : shared) extra.push_back(entry.first);
  for (const PeftModule& module : modules)
    for (const std::pair<const std::string, Tensor>& entry : module.parts)
      extra.push_back("base_model.model." + module.name + "." + entry.first);
  for (const std::string& key : extra)
    if (used_.count(key) == 0)
      fail(
          ErrorCode::Corrupt,
          "{}: tensor {} has no part in the adapter that {} describes; the two files do not belong "
          "together",
          where, key, config.path());
}

std::vector<Site> PeftView::sites() const {
  std::vector<Site> result;
  std::set<int> seen;
  for (const std::pair<int, Edit>& entry : recorder_.edits())
    if (seen.insert(entry.first).second)
      result.push_back(model_.sites()[static_cast<size_t>(entry.first)]);
  return result;
}

const Owned* PeftView::find(const Site& site, const std::string& name) const {
  for (const Owned& owned : recorder_.owned())
    if (owned.name == site.name + "/" + name) return &owned;
  return nullptr;
}

Tensor PeftView::tensor(const Site& site, const std::string& name) const {
  const Owned* owned = find(site, name);
  ATTUNE_ASSERT(owned != nullptr);
  const Tensor value = owned->value.detach();
  return value.is_floating_point() ? value.to(at::kFloat) : value;
}

double PeftView::by_pattern(const char* option, const Site& site) const {
  const std::string key = std::string(option) + "_pattern";
  if (options().contains(key))
    for (Json::const_iterator it = options()[key].begin(); it != options()[key].end(); ++it)
      if (glob_match(it.key(), site.name)) return it->get<double>();
  return options().at(option).get<double>();
}

const PeftUpdate* PeftPiece::find(const Site& site) const {
  for (const PeftUpdate& update : updates)
    if (update.site.storage == site.storage && update.site.weight == site.weight) return &update;
  return nullptr;
}

bool PeftType::takes_site(const Site& site) const {
  return takes ? takes(site) : site.weight == WeightKind::Projection;
}

bool PeftType::join_pieces(PeftPiece& first, const PeftPiece& next) const {
  if (join) return join(first, next);
  if (first.type != next.type || first.config != next.config) return false;
  if (!first.shared.empty() || !next.shared.empty()) return false;
  for (const PeftUpdate& update : next.updates)
    if (first.find(update.site) != nullptr) return false;
  first.updates.insert(first.updates.end(), next.updates.begin(), next.updates.end());
  return true;
}

void cannot_export(const PeftView& view, const std::string& type, const std::string& why) {
  fail(ErrorCode::Unsupported,
       "exporting method {} to PEFT's {}: {}; keep the adapter in Attune's own format, or merge it "
       "and export the model (`attune export --to hf`)",
       view.recorder().method(), type, why);
}

Json plain_number(double value) {
  if (value == std::round(value) && std::abs(value) < 1e15)
    return Json(static_cast<int64_t>(value));
  return Json(value);
}

}  // namespace attune
