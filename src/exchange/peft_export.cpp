// A set of tuners -> a directory of PEFT's LORA type.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "core/attachment.h"
#include "exchange/module_names.h"
#include "exchange/peft.h"
#include "io/safetensors.h"
#include "tensor/torch.h"

namespace attune {

namespace {

using Module = ModuleNames::Module;
using SortedJson = nlohmann::json;  // PEFT writes its keys sorted

/// Without a task (a PEFT adapter written again), the class that the base's config.json names.
std::string task_of(const std::string& task, const Model& model) {
  const Json& config = model.config();
  if (!task.empty() || model.find("head.proj") == nullptr || !config.contains("architectures"))
    return task;
  const Json& names = config.at("architectures");
  const std::string name =
      names.is_array() && !names.empty() && names[0].is_string() ? names[0].get<std::string>() : "";
  if (ends_with(name, "ForSequenceClassification")) return "classify";
  if (ends_with(name, "ForTokenClassification")) return "tag";
  return ends_with(name, "ForQuestionAnswering") ? "qa" : "";
}

std::string task_type_of(const std::string& task) {
  if (task == "tag") return "TOKEN_CLS";
  return task == "qa" ? "QUESTION_ANS" : "SEQ_CLS";
}

/// What the set does to one module.
struct Change {
  std::vector<const LowRank*> updates;
  Tensor weight, bias;  // thawed values
  bool saved = false;   // written whole
};

class Exporter {
 public:
  Exporter(const Adaptation& adaptation, const Model& model, std::string set,
           const std::string& task, bool with_head)
      : adaptation_(adaptation),
        model_(model),
        set_(std::move(set)),
        names_(model),
        with_head_(with_head && !task.empty()),
        task_type_(with_head_ ? task_type_of(task) : "FEATURE_EXTRACTION") {}

  PeftExport write(const std::string& base_model, const std::string& directory) {
    collect();
    choose_saved();
    choose_bias();
    for (std::pair<const int, Change>& entry : changes_)
      write_module(*module(entry.first), entry.second);
    if (updated_.empty())
      fail(ErrorCode::Unsupported,
           "exporting \"{}\" to PEFT: it holds no low-rank update of the model's body, and PEFT's "
           "LORA needs one; export "
           "the whole model instead (`attune export --to hf`)",
           set_);
    save(base_model, directory);
    return std::move(result_);
  }

 private:
  struct Update {
    std::string name;
    int64_t rank;
    double alpha;
  };

  void collect();
  void collect_tensor(const Recorder& recorder, const Owned& owned);
  void choose_saved();
  void choose_bias();
  void write_module(const Module& module, const Change& change);
  void write_update(const Module& module, const Change& change);
  void save(const std::string& base_model, const std::string& directory);
  std::vector<std::string> targets() const;
  std::vector<std::string> saved_modules() const;
  double alpha_for(double scale, int64_t rank) const;

  bool left_out(const Module& module) const { return !with_head_ && !module.in_base; }
  std::string name_of(const Module& module) const {
    return with_head_ ? module.name : names_.bare(module);
  }
  const Module* module(int storage) const {
    for (const Module& module : names_.all())
      if (module.site.storage == storage) return &module;
    return nullptr;
  }
  void put(const std::string& name, const Tensor& value) {
    tensors_.emplace_back("base_model.model." + name,
                          value.detach().to(at::kFloat).contiguous().clone());
  }

  const Adaptation& adaptation_;
  const Model& model_;
  std::string set_;
  ModuleNames names_;
  bool with_head_;
  std::string task_type_;
  std::map<int, Change> changes_;  // by storage, in model order
  std::string bias_ = "none";
  bool rslora_ = false;
  double dropout_ = 0;
  std::vector<Update> updated_;
  NamedTensors tensors_;
  PeftExport result_;
};

/// Reads what every tuner of the set does; only low-rank updates and replaced tensors can go on.
void Exporter::collect() {
  std::vector<double> dropouts;
  for (const Recorder* recorder : adaptation_.recorders(set_)) {
    for (const std::pair<int, Edit>& entry : recorder->edits()) {
      const Site& site = model_.sites()[static_cast<size_t>(entry.first)];
      const LowRank* low = std::get_if<LowRank>(&entry.second);
      if (low == nullptr || site.weight != WeightKind::Projection)
        fail(ErrorCode::Unsupported,
             "exporting \"{}\" to PEFT: method {} uses {} at {}, for which PEFT's LORA has no "
             "form; keep the adapter in "
             "Attune's own format, or merge it and export the model (`attune export --to hf`)",
             set_, recorder->method(), verb_name(entry.second), site.name);
      changes_[site.storage].updates.push_back(low);
      dropouts.push_back(low->dropout);
    }
    for (const Owned& owned : recorder->owned()) collect_tensor(*recorder, owned);
  }
  for (const double dropout : dropouts) dropout_ = std::max(dropout_, dropout);
  if (!dropouts.empty() && *std::min_element(dropouts.begin(), dropouts.end()) != dropout_)
    result_.notes.push_back(format(
        "the updates have different dropout; PEFT holds one value, {} is written (it matters "
        "only when training goes on there)",
        dropout_));
  const std::vector<TunerSpec> specs = adaptation_.specs(set_);
  rslora_ = std::all_of(specs.begin(), specs.end(),
                        [](const TunerSpec& spec) {
                          return spec.method != "lora" || spec.options.value("rslora", false);
                        }) &&
            std::any_of(specs.begin(), specs.end(),
                        [](const TunerSpec& spec) { return spec.method == "lora"; });
}

void Exporter::collect_tensor(const Recorder& recorder, const Owned& owned) {
  const Site& site = model_.sites()[static_cast<size_t>(owned.site)];
  if (owned.role == Owned::Role::Thawed) {
    Change& change = changes_[site.storage];
    (ends_with(owned.name, "/weight") ? change.weight : change.bias) = owned.value;
    return;
  }
  // A factor that is computed from other tensors would go stale in a file.
  for (const std::pair<int, Edit>& entry : recorder.edits()) {
    const LowRank& low = std::get<LowRank>(entry.second);
    if (low.down.is_same(owned.value) || low.up.is_same(owned.value)) return;
  }
  fail(ErrorCode::Unsupported,
       "exporting \"{}\" to PEFT: method {} holds the tensor {}, which is no factor of a low-rank "
       "update; PEFT's LORA has "
       "no place for it",
       set_, recorder.method(), owned.name);
}

/// Modules written whole: those whose weight trained, those the checkpoint lacks, and the head PEFT
/// saves by itself.
void Exporter::choose_saved() {
  for (const Module& module : names_.all()) {
    const bool changed = changes_.count(module.site.storage) > 0;
    const bool fresh = model_.slot(module.site).fresh;
    if (left_out(module)) {
      if (changed || fresh)
        result_.notes.push_back(format(
            "{} stays in attune.safetensors: transformers' classes cannot hold this head, so "
            "the adapter is one of the bare model (FEATURE_EXTRACTION)",
            module.name));
      changes_.erase(module.site.storage);
      continue;
    }
    if (!fresh && module.in_base && !(changed && changes_[module.site.storage].weight.defined()))
      continue;
    if (module.site.weight == WeightKind::Vector) {
      if (!changed) continue;
      fail(ErrorCode::Unsupported,
           "exporting \"{}\" to PEFT: {} trained, a tensor outside any module; PEFT saves whole "
           "modules only",
           set_, module.name);
    }
    changes_[module.site.storage].saved = true;
  }
}

void Exporter::choose_bias() {
  std::set<int> trained, updated, all;
  for (const Module& module : names_.all()) {
    const std::map<int, Change>::const_iterator it = changes_.find(module.site.storage);
    if (!module.site.bias || left_out(module) || (it != changes_.end() && it->second.saved))
      continue;
    all.insert(module.site.storage);
    if (it == changes_.end()) continue;
    if (it->second.bias.defined()) trained.insert(module.site.storage);
    if (!it->second.updates.empty()) updated.insert(module.site.storage);
  }
  if (trained.empty()) return;
  if (trained == updated) {
    bias_ = "lora_only";
  } else if (trained == all) {
    bias_ = "all";
  } else {
    fail(ErrorCode::Unsupported,
         "exporting \"{}\" to PEFT: method bias trained {} biases; PEFT knows all of them ({}) or "
         "those of the modules "
         "with a low-rank update ({}), nothing between",
         set_, trained.size(), all.size(), updated.size());
  }
}

void Exporter::write_module(const Module& module, const Change& change) {
  const std::string name = name_of(module);
  const WeightSlot& slot = model_.slot(module.site);
  if (change.saved) {
    Affine map{change.weight.defined() ? change.weight : slot.weight,
               change.bias.defined() ? change.bias : slot.bias};
    for (const LowRank* low : change.updates) map = fold(map, *low);
    if (!change.updates.empty())
      result_.notes.push_back(
          format("the low-rank update of {} is added into its weight: PEFT saves that module whole",
                 module.name));
    put(name + ".weight", map.weight);
    if (map.bias.defined()) put(name + ".bias", map.bias);
    return;
  }
  if (change.bias.defined())
    put(name + (change.updates.empty() ? ".bias" : ".base_layer.bias"), change.bias);
  if (!change.updates.empty()) write_update(module, change);
}

/// The alpha that gives exactly this scale when PEFT divides by the rank (or its root): a round
/// number when one does.
double Exporter::alpha_for(double scale, int64_t rank) const {
  const double divisor = rslora_ ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank);
  const double alpha = scale * divisor;
  for (const double guess : {std::round(alpha), std::round(alpha * 1e6) / 1e6, alpha,
                             std::nextafter(alpha, 0.0), std::nextafter(alpha, 2 * alpha)})
    if (guess / divisor == scale) return guess;
  return alpha;
}

void Exporter::write_update(const Module& module, const Change& change) {
  const std::string name = name_of(module);
  Tensor down = change.updates[0]->down, up = change.updates[0]->up;
  double scale = change.updates[0]->scale;
  if (change.updates.size() > 1 || scale <= 0) {
    std::vector<Tensor> downs, ups;
    for (const LowRank* low : change.updates) {
      downs.push_back(low->down.detach());
      ups.push_back(low->up.detach() * low->scale);
    }
    down = at::cat(downs, 0);
    up = at::cat(ups, 1);
    scale = 1;
    if (change.updates.size() > 1)
      result_.notes.push_back(format("{} updates of {} are written as one of rank {}",
                                     change.updates.size(), module.name, down.size(0)));
  }
  put(name + ".lora_A.weight", down);
  put(name + ".lora_B.weight", up);
  updated_.push_back({name, down.size(0), alpha_for(scale, down.size(0))});
}

/// Short names ("attention.self.query") when they say exactly the same as the full ones.
std::vector<std::string> Exporter::targets() const {
  std::vector<std::string> full;
  std::set<std::string> tails;
  bool usable = true;
  for (const Update& update : updated_) {
    full.push_back(update.name);
    size_t at = 0;
    for (size_t i = 0; i + 1 < update.name.size(); ++i) {
      if (update.name[i] != '.' || !std::isdigit(static_cast<unsigned char>(update.name[i + 1])))
        continue;
      const size_t end = update.name.find('.', i + 1);
      if (end != std::string::npos) at = end + 1;
      break;
    }
    tails.insert(update.name.substr(at));
    usable = usable && tails.rbegin()->find('.') != std::string::npos && at > 0;
  }
  std::sort(full.begin(), full.end());
  for (const Module& module : names_.all()) {
    const std::string name = name_of(module);
    const bool wanted = std::binary_search(full.begin(), full.end(), name);
    const bool hit = std::any_of(tails.begin(), tails.end(), [&](const std::string& tail) {
      return name == tail || ends_with(name, "." + tail);
    });
    usable = usable && wanted == hit;
  }
  return usable ? std::vector<std::string>(tails.begin(), tails.end()) : full;
}

std::vector<std::string> Exporter::saved_modules() const {
  std::set<std::string> saved;
  if (task_type_ == "SEQ_CLS" || task_type_ == "TOKEN_CLS")
    saved = {"classifier", "score"};  // as PEFT adds by itself
  if (task_type_ == "QUESTION_ANS") saved = {"qa_outputs"};
  for (const std::pair<const int, Change>& entry : changes_) {
    if (!entry.second.saved) continue;
    const Module& saved_module = *module(entry.first);
    const std::string name = name_of(saved_module);
    saved.insert(saved_module.in_base ? name : name.substr(0, name.find('.')));
  }
  return {saved.begin(), saved.end()};
}

namespace {

/// A module's name as an expression that matches nothing else.
std::string escaped(const std::string& name) {
  std::string result;
  for (const char c : name) result += c == '.' ? std::string("\\.") : std::string(1, c);
  return result;
}

template <class T>
T most_common(const std::vector<T>& values) {
  T best = values.front();
  for (const T& value : values)
    if (std::count(values.begin(), values.end(), value) >
        std::count(values.begin(), values.end(), best))
      best = value;
  return best;
}

std::string readme(const std::string& base_model, const std::string& task_type) {
  return format(
      "---\nbase_model: {}\nlibrary_name: peft\n---\n\nA LoRA adapter ({}) trained with Attune.\n\n"
      "    from peft import PeftModel\n    model = PeftModel.from_pretrained(base_model, \".\")\n",
      base_model, task_type);
}

}  // namespace

void Exporter::save(const std::string& base_model, const std::string& directory) {
  std::vector<int64_t> ranks;
  std::vector<double> alphas;
  for (const Update& update : updated_) {
    ranks.push_back(update.rank);
    alphas.push_back(update.alpha);
  }
  const int64_t rank = most_common(ranks);
  const double alpha = most_common(alphas);
  const std::function<SortedJson(double)> number = [](double value) {
    return value == std::round(value) ? SortedJson(static_cast<int64_t>(value)) : SortedJson(value);
  };
  SortedJson config{{"peft_type", "LORA"},
                    {"task_type", task_type_},
                    {"base_model_name_or_path", base_model},
                    {"revision", nullptr},
                    {"inference_mode", true},
                    {"auto_mapping", nullptr},
                    {"r", rank},
                    {"lora_alpha", number(alpha)},
                    {"lora_dropout", dropout_},
                    {"target_modules", targets()},
                    {"bias", bias_},
                    {"fan_in_fan_out", false},
                    {"init_lora_weights", true},
                    {"modules_to_save", nullptr}};
  if (!saved_modules().empty()) config["modules_to_save"] = saved_modules();
  if (rslora_) config["use_rslora"] = true;
  for (const Update& update : updated_) {
    if (update.rank != rank) config["rank_pattern"][escaped(update.name)] = update.rank;
    if (update.alpha != alpha) config["alpha_pattern"][escaped(update.name)] = number(update.alpha);
  }
  std::filesystem::create_directories(directory);
  save_safetensors(directory + "/adapter_model.safetensors", tensors_);
  write_file_atomic(directory + "/adapter_config.json", config.dump(2) + "\n");
  write_file_atomic(directory + "/README.md", readme(base_model, task_type_));
  result_.notes.insert(
      result_.notes.begin(),
      format("LoRA on {} module(s), readable by PEFT as {} over {}", updated_.size(), task_type_,
             base_model.empty() ? "the base model" : base_model));
  if (bias_ != "none")
    result_.notes.push_back(format("the trained biases are written as bias: {}", bias_));
  if (task_type_ == "SEQ_CLS" || task_type_ == "TOKEN_CLS")
    result_.notes.push_back(
        "the head is in the adapter (modules_to_save); PEFT keeps no label names: give num_labels "
        "and "
        "id2label when loading the base model there");
}

}  // namespace

PeftExport export_peft(const Adaptation& adaptation, const Model& model, const std::string& set,
                       const std::string& base_model, const std::string& task,
                       bool head_is_transformers_like, const std::string& directory) {
  return Exporter(adaptation, model, set, task_of(task, model), head_is_transformers_like)
      .write(base_model, directory);
}

}  // namespace attune
