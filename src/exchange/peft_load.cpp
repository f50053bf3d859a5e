// PEFT's LORA directories -> tuners. File keys are "base_model.model." + the module's path in the
// class that was wrapped
// + ".lora_A.weight", ".lora_B.weight", or (modules_to_save, biases) ".weight", ".bias",
// ".base_layer.bias".
#include <algorithm>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "exchange/module_names.h"
#include "exchange/peft.h"
#include "exchange/peft_config.h"
#include "io/safetensors.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

namespace {

/// What the file holds for one module.
struct Found {
  std::string name;  // as PEFT names it
  Tensor down, up, weight, bias;
};

class Loader {
 public:
  Loader(Adaptation& adaptation, Model& model, std::string set, const std::string& directory)
      : adaptation_(adaptation),
        model_(model),
        set_(std::move(set)),
        names_(model),
        config_path_(directory + "/adapter_config.json"),
        tensors_path_(directory + "/adapter_model.safetensors"),
        config_(parse_lora_config(read_peft_card(directory).config, config_path_)) {
    if (file_exists(tensors_path_)) return;
    if (file_exists(directory + "/adapter_model.bin"))
      fail(ErrorCode::Unsupported,
           "{}/adapter_model.bin is a pickle, which is not read here; load it in PEFT and save it "
           "again with "
           "save_pretrained(..., safe_serialization=True)",
           directory);
    fail(ErrorCode::NotFound, "{} is missing; a PEFT adapter holds its tensors there",
         tensors_path_);
  }

  void load() {
    read_tensors();
    check_updates();
    const std::vector<std::string> sets = adaptation_.sets();
    const bool existed = std::count(sets.begin(), sets.end(), set_) > 0;
    const int before = existed ? static_cast<int>(adaptation_.specs(set_).size()) : 0;
    try {
      attach();
    } catch (const Error&) {
      undo(existed, before);
      throw;
    }
  }

 private:
  void read_tensors();
  void place(const std::string& key, const Tensor& value);
  Found& module_at(const std::string& name, const std::string& key);
  void set(Tensor& slot, const Tensor& value, const std::vector<int64_t>& shape,
           const std::string& key) const;
  void check_updates() const;
  void attach();
  void attach_saved();
  void add(const std::string& method, Json options,
           std::vector<std::pair<std::string, Tensor>> tensors);
  void undo(bool existed, int before);
  const Site& site(int storage) const;
  std::string peft_name(const ModuleNames::Module& module) const {
    return prefixed_ ? module.name : names_.bare(module);
  }

  Adaptation& adaptation_;
  Model& model_;
  std::string set_;
  ModuleNames names_;
  std::string config_path_, tensors_path_;
  LoraConfig config_;
  std::map<int, Found> found_;  // by storage
  bool prefixed_ = true;        // the file's names carry the base model's prefix
};

const Site& Loader::site(int storage) const {
  for (const ModuleNames::Module& module : names_.all())
    if (module.site.storage == storage) return module.site;
  fail(ErrorCode::Internal, "no site has storage {}", storage);
}

Found& Loader::module_at(const std::string& name, const std::string& key) {
  const ModuleNames::Module* module = names_.find(name);
  if (module == nullptr)
    fail(ErrorCode::BadInput,
         "loading {}: the tensor {} belongs to a module that this model does not have; load the "
         "model with the head the "
         "adapter was trained with (its task_type is \"{}\"; a pooler needs `head: {{pool: "
         "pooler}}`)",
         tensors_path_, key, config_.task_type.empty() ? "null" : config_.task_type);
  if (module->in_base && !names_.prefix().empty()) prefixed_ = starts_with(name, names_.prefix());
  Found& found = found_[module->site.storage];
  found.name = name;
  return found;
}

void Loader::set(Tensor& slot, const Tensor& value, const std::vector<int64_t>& shape,
                 const std::string& key) const {
  bool fits = value.dim() == static_cast<int64_t>(shape.size()) && value.is_floating_point();
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = shape[i] < 0 || value.size(static_cast<int64_t>(i)) == shape[i];
  if (!fits)
    fail(ErrorCode::Corrupt,
         "{}: tensor {} has shape [{}], but config and model need floating-point [{}]",
         tensors_path_, key, fmt::join(value.sizes().vec(), ", "), fmt::join(shape, ", "));
  slot = value;
}

/// A key without "base_model.model."; the part after the module's path says what it is.
void Loader::place(const std::string& key, const Tensor& value) {
  const std::string leading = "base_model.model.";
  if (!starts_with(key, leading))
    fail(ErrorCode::Unsupported, "{}: tensor {} does not begin with \"{}\", as those of LORA do",
         tensors_path_, key, leading);
  std::string name = key.substr(leading.size());
  if (name.find(".original_module.") != std::string::npos)
    return;  // the untouched module beside its trained copy
  if (const size_t at = name.find(".modules_to_save."); at != std::string::npos) name.erase(at, 16);
  const std::function<bool(const std::string&)> cut = [&](const std::string& suffix) {
    if (!ends_with(name, suffix)) return false;
    name.resize(name.size() - suffix.size());
    return true;
  };
  const bool down = cut(".lora_A.weight");
  if (down || cut(".lora_B.weight")) {
    Found& found = module_at(name, key);
    const Site& site = names_.find(name)->site;
    if (site.weight != WeightKind::Projection)
      fail(ErrorCode::Unsupported, "{}: tensor {} updates a module that is not a linear layer",
           tensors_path_, key);
    if (down) return set(found.down, value, {config_.rank_of(name), site.in}, key);
    return set(found.up, value, {site.out, config_.rank_of(name)}, key);
  }
  if (const ModuleNames::Module* whole = names_.find(name);
      whole != nullptr && whole->site.weight == WeightKind::Vector)
    return set(found_[whole->site.storage].weight, value, {whole->site.out}, key);
  if (cut(".base_layer.bias") || cut(".bias")) {
    Found& found = module_at(name, key);
    if (!names_.find(name)->site.bias)
      fail(ErrorCode::BadInput,
           "loading {}: tensor {} is a bias, but that module of this model has none", tensors_path_,
           key);
    return set(found.bias, value, {names_.find(name)->site.out}, key);
  }
  if (!ends_with(name, ".base_layer.weight") && cut(".weight")) {
    Found& found = module_at(name, key);
    const Tensor& base = model_.slot(names_.find(name)->site).weight;
    return set(found.weight, value, base.sizes().vec(), key);
  }
  fail(ErrorCode::Unsupported,
       "{}: tensor {} is of a kind that is not read here (LoRA of projections, whole modules and "
       "biases are)",
       tensors_path_, key);
}

void Loader::read_tensors() {
  const SafetensorsFile file(tensors_path_);
  for (const TensorInfo& info : file.tensors()) place(info.name, file.tensor(info.name));
  bool any = false;
  for (const std::pair<const int, Found>& entry : found_) any = any || entry.second.down.defined();
  if (!any) fail(ErrorCode::Corrupt, "{}: there is no lora_A tensor in it", tensors_path_);
}

/// Config and tensors must name the same modules: PEFT itself would drop or leave at zero what does
/// not match.
void Loader::check_updates() const {
  for (const ModuleNames::Module& module : names_.all()) {
    const std::map<int, Found>::const_iterator it = found_.find(module.site.storage);
    const bool down = it != found_.end() && it->second.down.defined();
    const bool up = it != found_.end() && it->second.up.defined();
    if (down != up)
      fail(ErrorCode::Corrupt, "{}: {} has lora_{} without lora_{}", tensors_path_, it->second.name,
           down ? "A" : "B", down ? "B" : "A");
    if (module.site.weight != WeightKind::Projection && !down) continue;
    const std::string name = down ? it->second.name : peft_name(module);
    const bool targeted = config_.targets_module(name);
    if (down && !targeted)
      fail(ErrorCode::Corrupt,
           "{}: there is an update of {}, which target_modules of {} does not name", tensors_path_,
           name, config_path_);
    // "all-linear" leaves out the head, and which modules are heads is not written.
    const bool vague = config_.all_linear && starts_with(module.site.name, "head.");
    if (!down && targeted && !vague)
      fail(ErrorCode::Corrupt,
           "{}: tensor base_model.model.{}.lora_A.weight is missing; {} makes {} a target",
           tensors_path_, name, config_path_, name);
  }
}

void Loader::add(const std::string& method, Json options,
                 std::vector<std::pair<std::string, Tensor>> tensors) {
  const std::string position = std::to_string([&] {
    const std::vector<std::string> sets = adaptation_.sets();
    return std::count(sets.begin(), sets.end(), set_) > 0 ? adaptation_.specs(set_).size()
                                                          : size_t{0};
  }());
  adaptation_.add(set_, {method, std::move(options)}, config_path_);
  std::map<std::string, Tensor> targets;
  for (const std::pair<std::string, Tensor>& entry : adaptation_.tensors(set_))
    targets.insert(entry);
  at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : tensors) {
    const std::map<std::string, Tensor>::iterator target =
        targets.find(position + "." + method + "/" + entry.first);
    ATTUNE_ASSERT(target != targets.end());
    target->second.copy_(entry.second);
    mark_changed(target->second);
  }
}

void Loader::attach() {
  struct Group {
    Json sites = Json::array();
    std::vector<std::pair<std::string, Tensor>> tensors;
  };
  std::map<std::pair<int64_t, double>, Group> groups;
  for (const std::pair<const int, Found>& entry : found_) {
    const Found& found = entry.second;
    if (!found.down.defined()) continue;
    const std::string& name = site(entry.first).name;
    Group& group = groups[{config_.rank_of(found.name), config_.alpha_of(found.name)}];
    group.sites.push_back(name);
    group.tensors.emplace_back(name + "/down", found.down);
    group.tensors.emplace_back(name + "/up", found.up);
  }
  for (const std::pair<const std::pair<int64_t, double>, Group>& group : groups) {
    const Json options{{"sites", group.second.sites},
                       {"rank", group.first.first},
                       {"alpha", group.first.second},
                       {"dropout", config_.dropout},
                       {"rslora", config_.rslora}};
    add("lora", options, group.second.tensors);
  }
  attach_saved();
}

/// Whole modules, then biases alone.
void Loader::attach_saved() {
  Json whole = Json::array(), biases = Json::array();
  std::vector<std::pair<std::string, Tensor>> whole_tensors, bias_tensors;
  for (const std::pair<const int, Found>& entry : found_) {
    const Found& found = entry.second;
    const std::string& name = site(entry.first).name;
    if (found.weight.defined()) whole_tensors.emplace_back(name + "/weight", found.weight);
    if (found.bias.defined())
      (found.weight.defined() ? whole_tensors : bias_tensors)
          .emplace_back(name + "/bias", found.bias);
    if (found.weight.defined()) {
      whole.push_back(name);
    } else if (found.bias.defined()) {
      biases.push_back(name);
    }
  }
  if (!whole.empty()) add("full", Json{{"sites", whole}}, std::move(whole_tensors));
  if (!biases.empty()) add("bias", Json{{"sites", biases}}, std::move(bias_tensors));
}

void Loader::undo(bool existed, int before) {
  const std::vector<std::string> sets = adaptation_.sets();
  if (std::count(sets.begin(), sets.end(), set_) == 0) return;
  if (!existed) return adaptation_.remove(set_);
  for (int i = static_cast<int>(adaptation_.specs(set_).size()); i-- > before;)
    adaptation_.remove(set_, i);
}

}  // namespace

void load_peft(Adaptation& adaptation, Model& model, const std::string& set,
               const std::string& directory) {
  Loader(adaptation, model, set, directory).load();
}

}  // namespace attune
