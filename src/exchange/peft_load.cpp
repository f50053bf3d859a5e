// PEFT's directories -> tuners: the part that is the same for every type.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "exchange/module_names.h"
#include "exchange/peft.h"
#include "exchange/peft_file.h"
#include "exchange/peft_type.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

namespace {

using Module = ModuleNames::Module;

/// Fields of every type's config.
const std::vector<std::string>& common_fields() {
  static const std::vector<std::string> fields{
      "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode",
      "auto_mapping", "peft_version", "modules_to_save", "target_modules", "exclude_modules",
      "layers_to_transform", "layers_pattern",
      // Which of the two ways a layer keeps its matrix follows from its class, whatever this says.
      "fan_in_fan_out"};
  return fields;
}

class Loader {
 public:
  Loader(Adaptation& adaptation, Model& model, std::string set, const std::string& directory)
      : adaptation_(adaptation),
        model_(model),
        set_(std::move(set)),
        directory_(directory),
        names_(model),
        config_(read_peft_card(directory).config, directory + "/adapter_config.json"),
        type_(type_named(config_)),
        targets_(config_) {}

  void load() {
    check_fields();
    const std::string task = config_.text("task_type", "");
    file_ = read_peft_file(directory_, type_, targets_, names_, model_, task);
    if (!type_.prompts) check_targets();
    PeftSource source(config_, model_, directory_ + "/adapter_model.safetensors");
    for (const Module& module : names_.all()) {
      const std::map<const Module*, PeftFile::Found>::iterator it = file_.modules.find(&module);
      if (it != file_.modules.end() && !it->second.adapted.parts.empty())
        source.modules.push_back(std::move(it->second.adapted));
    }
    source.shared = std::move(file_.shared);
    const std::vector<PeftTuner> tuners = type_.load(source);
    source.check_all_used();
    attach_all(tuners);
  }

 private:
  static PeftType type_named(const PeftConfig& config);
  void check_fields() const;
  void check_targets() const;
  void attach_all(const std::vector<PeftTuner>& tuners);
  void attach(const PeftTuner& tuner);
  [[noreturn]] void misfit(const PeftTuner& tuner, const std::string& tensor,
                           const std::string& what) const;
  bool parts(const Module& module, const PeftFile::Found& found) const;
  void attach_saved();
  size_t count() const;
  void undo(bool existed, size_t before);

  Adaptation& adaptation_;
  Model& model_;
  std::string set_, directory_;
  ModuleNames names_;
  PeftConfig config_;
  PeftType type_;
  PeftTargets targets_;
  PeftFile file_;
};

PeftType Loader::type_named(const PeftConfig& config) {
  const std::string wanted = config.text("peft_type", "");
  std::vector<std::string> known;
  for (PeftType& type : peft_types()) {
    if (type.name == wanted) return std::move(type);
    known.push_back(type.name);
  }
  fail(ErrorCode::Unsupported, "{}: \"peft_type\" is \"{}\"; this build reads {}", config.path(),
       wanted, join(known, ", "));
}

void Loader::check_fields() const {
  std::vector<std::string> known = common_fields();
  known.insert(known.end(), type_.fields.begin(), type_.fields.end());
  for (const std::pair<std::string, std::string>& pattern : type_.patterns)
    known.push_back(pattern.second);
  if (!type_.bias_only.empty()) {
    known.push_back("bias");
    const std::string bias = config_.text("bias", "none");
    if (bias != "none" && bias != "all" && bias != type_.bias_only)
      config_.refuse("bias", format("known: none, all, {}", type_.bias_only));
  } else if (config_.text("bias", "none") == "none") {
    known.push_back("bias");
  }
  config_.refuse_unknown(known);
}

/// Config and tensors must name the same modules: PEFT itself would drop, or leave at its initial
/// value, what does not match.
void Loader::check_targets() const {
  bool any = false;
  for (const Module& module : names_.all()) {
    const std::map<const Module*, PeftFile::Found>::const_iterator it = file_.modules.find(&module);
    const bool there = it != file_.modules.end() && !it->second.adapted.parts.empty();
    any = any || there;
    if (!there && !type_.takes_site(module.site)) continue;
    const bool linear = module.site.weight == WeightKind::Projection &&
                        model_.slot(module.site).stored.empty();  // no convolution
    if (targets_.all_linear() && !there && !linear) continue;
    const std::string name = there ? it->second.adapted.name : file_.name_of(names_, module);
    const bool targeted = targets_.contain(name);
    if (there && !targeted)
      fail(ErrorCode::Corrupt,
           "{}/adapter_model.safetensors: it changes {}, which target_modules of {} does not name",
           directory_, name, config_.path());
    // "all-linear" leaves out the head, and which modules are heads is not written.
    const bool vague = targets_.all_linear() && starts_with(module.site.name, "head.");
    if (!there && targeted && !vague)
      fail(ErrorCode::Corrupt,
           "{}/adapter_model.safetensors: tensor base_model.model.{}.{} is missing; {} makes {} a "
           "target",
           directory_, name, type_.parts.front(), config_.path(), name);
  }
  if (!any)
    fail(ErrorCode::Corrupt, "{}/adapter_model.safetensors: there is no {} tensor in it",
         directory_, type_.parts.front());
}

size_t Loader::count() const {
  const std::vector<std::string> sets = adaptation_.sets();
  return std::count(sets.begin(), sets.end(), set_) > 0 ? adaptation_.specs(set_).size() : 0;
}

void Loader::attach_all(const std::vector<PeftTuner>& tuners) {
  const std::vector<std::string> sets = adaptation_.sets();
  const bool existed = std::count(sets.begin(), sets.end(), set_) > 0;
  const size_t before = count();
  try {
    for (const PeftTuner& tuner : tuners) attach(tuner);
    attach_saved();
  } catch (const Error&) {
    undo(existed, before);
    throw;
  }
}

void Loader::attach(const PeftTuner& tuner) {
  const std::string label = format("{}.{}/", count(), tuner.method);
  adaptation_.add(set_, {tuner.method, tuner.options}, config_.path());
  std::map<std::string, Tensor> targets;
  for (const std::pair<std::string, Tensor>& entry : adaptation_.tensors(set_))
    targets.insert(entry);
  const at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : tuner.tensors) {
    const std::map<std::string, Tensor>::iterator target = targets.find(label + entry.first);
    if (target == targets.end() || target->second.sizes() != entry.second.sizes())
      misfit(tuner, entry.first,
             format("[{}] is more than it needs, or of another shape",
                    fmt::join(entry.second.sizes().vec(), ", ")));
    target->second.copy_(entry.second);
    mark_changed(target->second);
  }
  for (const Owned& owned : adaptation_.recorders(set_).back()->owned()) {
    const bool given = std::any_of(
        tuner.tensors.begin(), tuner.tensors.end(),
        [&](const std::pair<std::string, Tensor>& entry) { return entry.first == owned.name; });
    if (!given && owned.role == Owned::Role::Parameter) misfit(tuner, owned.name, "is missing");
  }
}

void Loader::misfit(const PeftTuner& tuner, const std::string& tensor,
                    const std::string& what) const {
  fail(ErrorCode::Corrupt,
       "{}/adapter_model.safetensors: the adapter that {} describes does not fit the method {}: {} "
       "{}",
       directory_, config_.path(), tuner.method, tensor, what);
}

/// PEFT trains a copy of each module that modules_to_save names, so tied ones part; what else it
/// writes whole stands in the base model, where they stay one.
bool Loader::parts(const Module& module, const PeftFile::Found& found) const {
  if (!found.weight.defined() || config_.flag("ensure_weight_tying", false)) return false;
  const auto shares = [&](const Module& other) {
    return &other != &module && other.site.storage == module.site.storage;
  };
  // Of single tokens those of a table are the tied output's as well.
  const bool own =
      found.rows ? module.site.weight != WeightKind::Table : targets_.saved(found.adapted.name);
  return own && std::any_of(names_.all().begin(), names_.all().end(), shares);
}

/// Whole modules, then biases alone.
void Loader::attach_saved() {
  PeftTuner whole{"full"}, apart{"full", {{"tied", false}}}, biases{"bias"};
  std::map<int, Tensor> tied;  // by storage
  for (const Module& module : names_.all()) {
    const std::map<const Module*, PeftFile::Found>::const_iterator it = file_.modules.find(&module);
    if (it == file_.modules.end()) continue;
    const PeftFile::Found& found = it->second;
    if (!found.weight.defined() && !found.bias.defined()) continue;
    const bool alone = parts(module, found);
    if (found.weight.defined() && !alone) {
      const Tensor& first = tied.emplace(module.site.storage, found.weight).first->second;
      if (!first.is_same(found.weight) && at::equal(first, found.weight)) continue;
    }
    PeftTuner& tuner = alone ? apart : found.weight.defined() ? whole : biases;
    tuner.act_at(module.site);
    if (found.weight.defined()) tuner.set(module.site, "weight", found.weight);
    if (found.bias.defined()) tuner.set(module.site, "bias", found.bias);
  }
  for (const PeftTuner* tuner : {&whole, &apart, &biases})
    if (!tuner->tensors.empty()) attach(*tuner);
}

void Loader::undo(bool existed, size_t before) {
  const std::vector<std::string> sets = adaptation_.sets();
  if (std::count(sets.begin(), sets.end(), set_) == 0) return;
  if (!existed) return adaptation_.remove(set_);
  for (size_t i = count(); i-- > before;) adaptation_.remove(set_, static_cast<int>(i));
}

}  // namespace

void load_peft(Adaptation& adaptation, Model& model, const std::string& set,
               const std::string& directory) {
  Loader(adaptation, model, set, directory).load();
}

}  // namespace attune
