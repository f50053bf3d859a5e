// Keys of adapter_model.safetensors are "base_model.model." + the module's path in the class that
// was wrapped + a part of the adapter (".lora_A.weight"), or (modules_to_save, biases) ".weight",
// ".bias", ".base_layer.bias". Prompt learning leaves "model." out; a few tensors belong to no
// module ("base_model.vera_A", "prompt_embeddings").
#include "exchange/peft_file.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {

namespace {

using Module = ModuleNames::Module;

class Reader {
 public:
  Reader(const std::string& directory, const PeftType& type, const PeftTargets& targets,
         const ModuleNames& names, const Model& model, std::string task_type)
      : directory_(directory),
        path_(directory + "/adapter_model.safetensors"),
        type_(type),
        targets_(targets),
        names_(names),
        model_(model),
        task_type_(std::move(task_type)) {}

  PeftFile read() {
    check_there();
    const SafetensorsFile file(path_);
    for (const TensorInfo& info : file.tensors()) place(info.name, file.tensor(info.name));
    return std::move(file_);
  }

 private:
  void check_there() const;
  void place(const std::string& key, const Tensor& value);
  bool place_part(const std::string& name, const std::string& key, const Tensor& value);
  bool place_whole(std::string name, const std::string& key, const Tensor& value);
  bool place_tokens(const std::string& name, const std::string& key, const Tensor& value);
  bool repeats_base(const std::string& name, const Tensor& value) const;
  const Module& module_at(const std::string& name, const std::string& key);
  void set(Tensor& slot, const Tensor& value, const std::vector<int64_t>& shape,
           const std::string& key) const;

  std::string directory_, path_;
  const PeftType& type_;
  const PeftTargets& targets_;
  const ModuleNames& names_;
  const Model& model_;
  std::string task_type_;
  PeftFile file_;
};

void Reader::check_there() const {
  if (file_exists(path_)) return;
  if (file_exists(directory_ + "/adapter_model.bin"))
    fail(ErrorCode::Unsupported,
         "{}/adapter_model.bin is a pickle, which is not read here; load it in PEFT and save it "
         "again with save_pretrained(..., safe_serialization=True)",
         directory_);
  fail(ErrorCode::NotFound, "{} is missing; a PEFT adapter holds its tensors there", path_);
}

/// The name without `suffix`, when it ends so.
std::optional<std::string> without(const std::string& name, const std::string& suffix) {
  if (!ends_with(name, suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

const Module& Reader::module_at(const std::string& name, const std::string& key) {
  const Module* module = names_.find(name);
  if (module == nullptr)
    fail(ErrorCode::BadInput,
         "loading {}: the tensor {} belongs to a module that this model does not have; load the "
         "model with the head the adapter was trained with (its task_type is \"{}\"; a pooler "
         "needs `head: {{pool: pooler}}`)",
         path_, key, task_type_.empty() ? "null" : task_type_);
  if (module->uses > 1)
    fail(ErrorCode::Unsupported,
         "loading {}: the tensor {} belongs to the module {}, which {} layers of this model share; "
         "adapters of shared modules are not read",
         path_, key, module->name, module->uses);
  const bool newer = !ends_with(module->name, name) && !ends_with(name, module->name);
  if (module->newer != module->name) file_.newer = newer;
  if (module->in_base && !names_.prefix().empty())
    file_.prefixed = starts_with(name, names_.prefix());
  PeftFile::Found& found = file_.modules[module];
  found.adapted.name = name;
  found.adapted.site = module->site;
  return *module;
}

void Reader::set(Tensor& slot, const Tensor& value, const std::vector<int64_t>& shape,
                 const std::string& key) const {
  if (value.sizes().vec() != shape || !value.is_floating_point())
    fail(ErrorCode::Corrupt,
         "{}: tensor {} has shape [{}], but the model needs floating-point [{}]", path_, key,
         fmt::join(value.sizes().vec(), ", "), fmt::join(shape, ", "));
  slot = value;
}

bool Reader::place_part(const std::string& name, const std::string& key, const Tensor& value) {
  for (const std::string& part : type_.repeated)
    if (ends_with(name, "." + part)) return true;
  for (const std::string& part : type_.parts) {
    const std::optional<std::string> path = without(name, "." + part);
    if (!path) continue;
    const Module& module = module_at(*path, key);
    if (!type_.takes_site(module.site))
      fail(ErrorCode::Unsupported, "{}: tensor {} changes a module of a kind that {} does not",
           path_, key, type_.name);
    file_.modules[&module].adapted.parts[part] = value;
    return true;
  }
  return false;
}

/// The rows of some tokens of a table, or of the output.
bool Reader::place_tokens(const std::string& name, const std::string& key, const Tensor& value) {
  const std::optional<std::string> path = without(name, ".token_adapter.trainable_tokens_delta");
  if (!path) return false;
  const std::vector<int64_t> rows = targets_.token_rows(*path);
  const Module& module = module_at(*path, key);
  const WeightSlot& slot = model_.slot(module.site);
  Tensor given, weight = slot.dense().clone();
  for (const int64_t row : rows)
    if (row < 0 || row >= weight.size(0))
      fail(ErrorCode::Corrupt,
           "{}/adapter_config.json: trainable_token_indices names {}, but {} "
           "has {} rows",
           directory_, row, module.name, weight.size(0));
  set(given, value, {static_cast<int64_t>(rows.size()), weight.size(1)}, key);
  weight.index_copy_(0, int64_tensor(rows), given.to(weight.scalar_type()));
  file_.modules[&module].weight = weight;
  file_.modules[&module].rows = true;
  return true;
}

/// PEFT repeats embeddings and outputs that it was not asked to train, changed or not.
bool Reader::repeats_base(const std::string& name, const Tensor& value) const {
  const Module* module = names_.find(name);
  if (module == nullptr || !value.is_floating_point() || targets_.saved(name)) return false;
  const WeightSlot& slot = model_.slot(module->site);
  const Tensor base = slot.as_stored(slot.dense());
  return value.sizes() == base.sizes() && at::equal(value.to(base.scalar_type()), base);
}

bool Reader::place_whole(std::string name, const std::string& key, const Tensor& value) {
  // A lone vector is a tensor of its own, not one of a module.
  const Module* lone = names_.find(name);
  if (lone != nullptr && lone->site.weight == WeightKind::Vector) {
    set(file_.modules[lone].weight, value, {lone->site.out}, key);
    return true;
  }
  for (const char* suffix : {".base_layer.bias", ".bias"}) {
    const std::optional<std::string> path = without(name, suffix);
    if (!path) continue;
    const Module& module = module_at(*path, key);
    const Site* apart = model_.find("head.bias");  // a tensor of its own beside the output
    if (module.site.name == "head.proj" && apart != nullptr) {
      set(file_.modules[&names_.of(*apart)].weight, value, {apart->out}, key);
      return true;
    }
    if (!module.site.bias)
      fail(ErrorCode::BadInput,
           "loading {}: tensor {} is a bias, but that module of this model has none", path_, key);
    set(file_.modules[&module].bias, value, {module.site.out}, key);
    return true;
  }
  for (const char* suffix : {".base_layer.weight", ".weight"}) {
    const std::optional<std::string> path = without(name, suffix);
    if (!path) continue;
    if (repeats_base(*path, value)) return true;
    const Module& module = module_at(*path, key);
    const WeightSlot& own = model_.slot(module.site);
    Tensor& weight = file_.modules[&module].weight;
    set(weight, value, own.stored.empty() ? own.shape() : own.stored, key);
    weight = weight.reshape(own.shape());
    return true;
  }
  return false;
}

/// The part after the module's path says what a tensor is.
void Reader::place(const std::string& key, const Tensor& value) {
  if (std::count(type_.shared.begin(), type_.shared.end(), key) > 0) {
    file_.shared[key] = value;
    return;
  }
  const std::string outer = "base_model.", inner = "model.";
  std::string name = key;
  if (starts_with(name, outer)) name.erase(0, outer.size());
  const bool wrapped = name.size() < key.size() && starts_with(name, inner);
  if (name.size() == key.size() || !(wrapped || type_.prompts))
    fail(ErrorCode::Unsupported, "{}: tensor {} does not begin with \"{}{}\", as those of {} do",
         path_, key, outer, inner, type_.name);
  if (wrapped && !type_.prompts) name.erase(0, inner.size());
  if (name.find(".original_module.") != std::string::npos)
    return;  // the untouched module beside its trained copy
  if (const size_t at = name.find(".modules_to_save."); at != std::string::npos) name.erase(at, 16);
  if (place_part(name, key, value) || place_tokens(name, key, value) ||
      place_whole(name, key, value))
    return;
  fail(ErrorCode::Unsupported,
       "{}: tensor {} is of a kind that is not read here ({}, whole modules and biases are)", path_,
       key, type_.parts.empty() ? type_.name : join(type_.parts, ", "));
}

}  // namespace

PeftFile read_peft_file(const std::string& directory, const PeftType& type,
                        const PeftTargets& targets, const ModuleNames& names, const Model& model,
                        const std::string& task_type) {
  return Reader(directory, type, targets, names, model, task_type).read();
}

}  // namespace attune
