#include "exchange/peft_write.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "tensor/torch.h"

namespace attune {

namespace {

using Module = ModuleNames::Module;
using SortedJson = nlohmann::json;  // PEFT writes its keys sorted

SortedJson sorted(const Json& json) {
  return SortedJson::parse(json.dump());
}

/// A module's name as an expression that matches no other of them.
std::string expression_of(const std::string& name, PeftConfig::Match match,
                          const std::vector<std::string>& all) {
  std::string shown = name;
  if (match == PeftConfig::Match::Tail) {
    // Only what follows a dot is compared: the longest tail, when it is one module's.
    const size_t dot = name.find('.');
    const std::string tail = dot == std::string::npos ? "" : name.substr(dot);
    const int64_t hits = std::count_if(
        all.begin(), all.end(), [&](const std::string& other) { return ends_with(other, tail); });
    if (!tail.empty() && hits == 1) shown = tail.substr(1);
  }
  std::string result;
  for (const char c : shown) result += c == '.' ? std::string("\\.") : std::string(1, c);
  const bool whole = match == PeftConfig::Match::Tail && shown.size() == name.size();
  // PEFT puts ".*\." in front without grouping: a first alternative that never matches takes it.
  return whole ? "(?!)|" + result : result;
}

Json most_common(const std::vector<Json>& values) {
  Json best = values.front();
  for (const Json& value : values)
    if (std::count(values.begin(), values.end(), value) >
        std::count(values.begin(), values.end(), best))
      best = value;
  return best;
}

class Writer {
 public:
  Writer(const PeftContext& context, const PeftDirectory& content)
      : context_(context), content_(content) {
    for (const PeftUpdate& update : content.piece.updates)
      targets_.push_back(context.name_of(context.names.of(update.site)));
  }

  void write(const std::string& directory) {
    std::filesystem::create_directories(directory);
    save_safetensors(directory + "/adapter_model.safetensors", tensors());
    write_file_atomic(directory + "/adapter_config.json", config().dump(2) + "\n");
    write_file_atomic(directory + "/README.md", readme());
  }

 private:
  NamedTensors tensors() const;
  SortedJson config() const;
  void add_own(SortedJson& config) const;
  std::vector<std::string> saved_modules() const;
  std::string readme() const;

  const PeftContext& context_;
  const PeftDirectory& content_;
  std::vector<std::string> targets_;  // in the order of the updates
};

NamedTensors Writer::tensors() const {
  NamedTensors result;
  const auto put = [&](const std::string& key, const Tensor& value) {
    const Tensor plain = value.is_floating_point() ? value.detach().to(at::kFloat) : value.detach();
    result.emplace_back(key, plain.contiguous().clone());
  };
  for (const std::pair<const std::string, Tensor>& entry : content_.piece.shared)
    put(entry.first, entry.second);
  for (size_t i = 0; i < targets_.size(); ++i)
    for (const std::pair<const std::string, Tensor>& part : content_.piece.updates[i].parts)
      put("base_model.model." + targets_[i] + "." + part.first, part.second);
  const std::string leading = content_.type.prompts ? "base_model." : "base_model.model.";
  for (const PeftWhole& whole : content_.saved) {
    put(leading + context_.name_of(*whole.module) + ".weight", whole.weight);
    if (whole.bias.defined()) put(leading + context_.name_of(*whole.module) + ".bias", whole.bias);
  }
  for (const PeftWhole& whole : content_.biases) {
    const std::string name = context_.name_of(*whole.module);
    const bool inside = std::count(targets_.begin(), targets_.end(), name) > 0;
    put(leading + name + (inside ? ".base_layer.bias" : ".bias"), whole.bias);
  }
  return result;
}

std::vector<std::string> Writer::saved_modules() const {
  std::set<std::string> saved;
  if (context_.task_type == "SEQ_CLS" || context_.task_type == "TOKEN_CLS")
    saved = {"classifier", "score"};  // as PEFT adds by itself
  if (context_.task_type == "QUESTION_ANS") saved = {"qa_outputs"};
  for (const PeftWhole& whole : content_.saved) {
    const std::string name = context_.name_of(*whole.module);
    saved.insert(whole.module->in_base ? name : name.substr(0, name.find('.')));
  }
  return {saved.begin(), saved.end()};
}

/// Settings of single modules: the commonest value for all, and patterns for the others.
void Writer::add_own(SortedJson& config) const {
  const std::vector<PeftUpdate>& updates = content_.piece.updates;
  for (const std::pair<std::string, std::string>& pattern : content_.type.patterns) {
    std::vector<Json> values;
    for (const PeftUpdate& update : updates) values.push_back(update.own.at(pattern.first));
    if (values.empty()) continue;
    const Json common = most_common(values);
    config[pattern.first] = sorted(common);
    for (size_t i = 0; i < updates.size(); ++i)
      if (values[i] != common)
        config[pattern.second][expression_of(targets_[i], content_.type.match, targets_)] =
            sorted(values[i]);
  }
}

SortedJson Writer::config() const {
  Json fields = content_.piece.config;
  if (!content_.type.prompts) fields["target_modules"] = shortest_targets(context_, targets_);
  if (content_.type.describe) content_.type.describe(content_.piece, targets_, fields);
  SortedJson config = sorted(fields);
  config["peft_type"] = content_.type.name;
  config["task_type"] = context_.task_type.empty() ? SortedJson() : SortedJson(context_.task_type);
  config["base_model_name_or_path"] = context_.base_model;
  config["revision"] = nullptr;
  config["inference_mode"] = true;
  config["auto_mapping"] = nullptr;
  config["modules_to_save"] = nullptr;
  const std::vector<std::string> saved = saved_modules();
  if (!saved.empty()) config["modules_to_save"] = saved;
  if (content_.type.prompts) return config;
  if (!content_.type.bias_only.empty()) config["bias"] = content_.bias;
  add_own(config);
  return config;
}

std::string Writer::readme() const {
  return format(
      "---\nbase_model: {}\nlibrary_name: peft\n---\n\nAn adapter of PEFT's type {} ({}) trained "
      "with Attune.\n\n    from peft import PeftModel\n    model = "
      "PeftModel.from_pretrained(base_model, \".\")\n",
      context_.base_model, content_.type.name,
      context_.task_type.empty() ? "no task type" : context_.task_type);
}

}  // namespace

std::vector<std::string> shortest_targets(const PeftContext& context,
                                          const std::vector<std::string>& names) {
  std::vector<std::string> full = names;
  std::sort(full.begin(), full.end());
  std::set<std::string> tails;
  bool usable = true;
  for (const std::string& name : full) {
    size_t at = 0;  // behind the number of the layer
    for (size_t i = 0; at == 0 && i + 1 < name.size(); ++i) {
      if (name[i] != '.' || !std::isdigit(static_cast<unsigned char>(name[i + 1]))) continue;
      const size_t end = name.find('.', i + 1);
      if (end == std::string::npos) break;
      at = end + 1;
    }
    const std::string tail = name.substr(at);
    usable = usable && at > 0 && tail.find('.') != std::string::npos;
    tails.insert(tail);
  }
  for (const Module& module : context.names.all()) {
    const std::string name = context.name_of(module);
    const bool wanted = std::binary_search(full.begin(), full.end(), name);
    const bool hit = std::any_of(tails.begin(), tails.end(), [&](const std::string& tail) {
      return name == tail || ends_with(name, "." + tail);
    });
    usable = usable && wanted == hit;
  }
  return usable ? std::vector<std::string>(tails.begin(), tails.end()) : full;
}

void write_peft(const PeftContext& context, const PeftDirectory& content,
                const std::string& directory) {
  Writer(context, content).write(directory);
}

}  // namespace attune
