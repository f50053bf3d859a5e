#include "arch/load.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "arch/fill.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "nn/transformer.h"
#include "tensor/torch.h"

namespace attune {

int64_t label_count(const Json& config) {
  if (config.contains("num_labels") && config["num_labels"].is_number_integer())
    return config["num_labels"].get<int64_t>();
  if (config.contains("id2label") && config["id2label"].is_object() && !config["id2label"].empty())
    return static_cast<int64_t>(config["id2label"].size());
  return 2;
}

std::vector<std::string> label_names(const Json& config) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < label_count(config); ++i) {
    const std::string key = std::to_string(i);
    const bool named = config.contains("id2label") && config["id2label"].contains(key);
    const Json name = named ? config["id2label"][key] : Json("LABEL_" + key);
    names.push_back(name.is_string() ? name.get<std::string>() : name.dump());
  }
  return names;
}

HeadRequest head_of_config(const Json& config) {
  HeadRequest head;
  const std::string name = config.contains("architectures") && config["architectures"].is_array() &&
                                   !config["architectures"].empty() &&
                                   config["architectures"][0].is_string()
                               ? config["architectures"][0].get<std::string>()
                               : "";
  if (ends_with(name, "ForSequenceClassification") || ends_with(name, "ForImageClassification"))
    head.kind = HeadKind::Sequence;
  if (ends_with(name, "ForTokenClassification")) head.kind = HeadKind::Token;
  if (ends_with(name, "ForQuestionAnswering")) head.kind = HeadKind::Span;
  if (ends_with(name, "ForMaskedLM") || ends_with(name, "ForPreTraining"))
    head.kind = HeadKind::MaskedLm;
  if (ends_with(name, "ForCausalLM") || ends_with(name, "LMHeadModel") ||
      ends_with(name, "ForConditionalGeneration"))
    head.kind = HeadKind::Lm;
  if (head.kind == HeadKind::Span) head.labels = 2;
  if (head.kind == HeadKind::Sequence)
    head.pool = "own";  // the class's own way, whatever else the folder says
  if (config.contains("attune_pool") &&
      config["attune_pool"].is_string())  // our own head beside a plain body
    head = {HeadKind::Sequence, label_count(config), config["attune_pool"].get<std::string>()};
  if (head.kind == HeadKind::Sequence || head.kind == HeadKind::Token)
    head.labels = label_count(config);
  return head;
}

namespace {

/// What a 1_Pooling/config.json pools by: "mean", "cls", ...
std::vector<std::string> pooling_modes(const Json& config) {
  std::vector<std::string> modes;
  const auto add = [&](std::string mode) {
    if (ends_with(mode, "_tokens")) mode.resize(mode.size() - 7);
    if (ends_with(mode, "_token")) mode.resize(mode.size() - 6);
    if (std::count(modes.begin(), modes.end(), mode) == 0) modes.push_back(mode);
  };
  const std::string key = "pooling_mode";
  for (const auto& [name, value] : config.items()) {
    if (name == key && value.is_string()) add(value.get<std::string>());
    if (name == key && value.is_array())
      for (const Json& mode : value) add(mode.is_string() ? mode.get<std::string>() : mode.dump());
    if (starts_with(name, key + "_") && value == true) add(name.substr(key.size() + 1));
  }
  return modes;
}

}  // namespace

std::string checkpoint_pool(const std::string& directory) {
  std::string pooling = directory + "/1_Pooling/config.json";
  const std::string modules = directory + "/modules.json";
  if (file_exists(modules))
    for (const Json& module : read_json(modules))
      if (ends_with(module.value("type", ""), "Pooling"))
        pooling = directory + "/" + module.value("path", "1_Pooling") + "/config.json";
  if (!file_exists(pooling)) return "";
  const std::vector<std::string> modes = pooling_modes(read_json(pooling));
  static const std::map<std::string, std::string> ours{
      {"mean", "mean"}, {"max", "max"}, {"cls", "first"}, {"lasttoken", "last"}};
  if (modes.empty()) return "";
  if (modes.size() > 1 || ours.count(modes[0]) == 0)
    fail(ErrorCode::Unsupported,
         "{}: sentences are pooled by {}; one of cls, mean, max and lasttoken is supported. Choose "
         "another with `head: {{pool: mean}}`",
         pooling, join(modes, " and "));
  return ours.at(modes[0]);
}

std::string checkpoint_fingerprint(const std::string& directory) {
  return Checkpoint(directory).sha256();
}

std::vector<std::string> LoadReport::lines() const {
  std::vector<std::string> result;
  if (!fresh.empty())
    result.push_back(format("newly initialised (not in the checkpoint): {}", join(fresh, ", ")));
  if (!unexpected.empty()) {
    std::vector<std::string> shown(unexpected.begin(),
                                   unexpected.begin() + std::min<size_t>(unexpected.size(), 6));
    result.push_back(format("in the checkpoint but not used: {} tensor(s): {}{}", unexpected.size(),
                            join(shown, ", "), unexpected.size() > shown.size() ? ", ..." : ""));
  }
  return result;
}

namespace {

std::unique_ptr<Architecture> architecture_of(const Json& config, const std::string& path) {
  if (!config.contains("model_type") || !config["model_type"].is_string())
    fail(ErrorCode::Corrupt,
         "{}: the key \"model_type\" is missing; it says which architecture the checkpoint is",
         path);
  const std::string type = config["model_type"].get<std::string>();
  const Registry<Architecture> registry = architectures();
  std::vector<std::string> known;
  for (const Entry<Architecture>& entry : registry.all()) {
    if (entry.name == type) return entry.make(Options());
    known.push_back(entry.name);
  }
  fail(ErrorCode::Unsupported,
       "{}: model_type is \"{}\", which is not supported;{} (`attune archs` lists them)", path,
       type, suggestion(type, known));
}

/// The architecture's specification, with what the request says about the head laid over it.
ModelSpec spec_of(const Architecture& architecture, const Json& config, const std::string& path,
                  const HeadRequest& head, const std::string& pool) {
  ModelSpec spec = architecture.spec(ConfigReader(config, path), head, pool);
  if (head.dropout >= 0) spec.head.dropout = head.dropout;
  spec.head.anew = head.anew;
  return spec;
}

/// Can the checkpoint fill the pooler that `spec` asks for?
bool has_pooler(const ModelSpec& spec, const Checkpoint& checkpoint) {
  for (const NameRule& rule : spec.names)
    if (rule.site == "head.pool") return !stored_name(rule, checkpoint, spec.prefixes).empty();
  return false;
}

/// A language model's own output matrix joins the names when it is not tied.
std::unique_ptr<Transformer> transformer_of(ModelSpec spec, const LoadOptions& options,
                                            const Json& config) {
  if (spec.words() && !spec.head.tied) {
    spec.names.push_back(spec.output);
    spec.names.back().bias.clear();  // a site of its own
  }
  return std::make_unique<Transformer>(std::move(spec), options.numerics, config);
}

}  // namespace

LoadedModel load_model(const std::string& directory, const LoadOptions& options) {
  const std::string config_path = directory + "/config.json";
  const Json config = read_json(config_path);
  const std::unique_ptr<Architecture> architecture = architecture_of(config, config_path);
  const Checkpoint checkpoint(directory);
  HeadRequest head = options.own_head ? options.head : head_of_config(config);
  if (head.kind == HeadKind::None) head.pool = "pooler";
  const bool open = head.kind == HeadKind::Sequence && head.pool == "auto";
  const std::string pool = open ? checkpoint_pool(directory) : "";
  ModelSpec spec = spec_of(*architecture, config, config_path, head, pool);
  if (head.kind == HeadKind::None && !has_pooler(spec, checkpoint)) {
    head.pool = "first";
    spec = spec_of(*architecture, config, config_path, head, pool);
  }
  settle_output(spec, checkpoint);
  std::unique_ptr<Transformer> model = transformer_of(std::move(spec), options, config);
  LoadedModel loaded;
  loaded.report = fill(*model, &checkpoint, directory, options.seed);
  loaded.model = std::move(model);
  loaded.directory = directory;
  return loaded;
}

std::unique_ptr<Model> init_model(const Json& config, const std::string& config_path,
                                  const LoadOptions& options) {
  const std::unique_ptr<Architecture> architecture = architecture_of(config, config_path);
  HeadRequest head = options.own_head ? options.head : head_of_config(config);
  if (head.kind == HeadKind::None) head.pool = "pooler";
  std::unique_ptr<Transformer> model =
      transformer_of(spec_of(*architecture, config, config_path, head, ""), options, config);
  fill(*model, nullptr, config_path, options.seed);
  return model;
}

namespace {

/// What the source holds under other names too, and the bias of an output that is tied no longer.
void write_other_names(const Transformer& model, std::map<std::string, Tensor>& tensors) {
  const auto write = [&](const std::string& name, const Site& site) {
    const WeightSlot& slot = model.slot(site);
    if (slot.weight_name != name) tensors[name] = slot.as_stored(slot.dense()).clone();
  };
  for (const NameRule& rule : model.spec().names)
    for (const std::pair<std::string, std::string>& other : rule.others)
      if (tensors.count(other.first) > 0) write(other.first, model.site(rule.site));
  const NameRule& output = model.spec().output;
  const Site* matrix = model.find("head.proj");
  const Site* bias = model.find("head.bias");
  if (output.weight.empty() || matrix == nullptr) return;
  if (model.spec().head.tied && !model.untied() && tensors.count(output.weight) > 0)
    write(output.weight, *matrix);
  if (model.untied() && bias != nullptr && !output.bias.empty()) write(output.bias, *bias);
}

}  // namespace

void copy_text_files(const std::string& from, const std::string& to) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
        "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja", "generation_config.json",
        "preprocessor_config.json", "processor_config.json"}) {
    const std::string source = from.empty() ? name : from + "/" + name;
    if (file_exists(source)) write_file_atomic(to + "/" + name, read_file(source));
  }
}

namespace {

/// Biases that were made where the checkpoint had none, those that come with them as zeros, and the
/// keys of config.json that say so.
void add_new_biases(const Transformer& model, std::map<std::string, Tensor>& tensors,
                    Json& config) {
  for (const auto& [key, ends] : model.spec().optional_biases) {
    std::vector<const Site*> sites;
    bool made = false;
    for (const Site& site : model.sites()) {
      if (site.kind != SiteKind::Weight || site.bias || site.copy_of >= 0) continue;
      for (const std::string& end : ends)
        if (ends_with(site.name, end)) sites.push_back(&site);
    }
    for (const Site* site : sites) made = made || model.slot(*site).bias.defined();
    if (!made) continue;
    config[key] = true;
    for (const Site* site : sites) {
      const WeightSlot& slot = model.slot(*site);
      const std::string& weight = slot.weight_name;
      tensors[weight.substr(0, weight.size() - std::string("weight").size()) + "bias"] =
          slot.bias.defined() ? slot.bias : at::zeros({site->out}, slot.master);
    }
  }
}

}  // namespace

void write_model(const Model& model, const std::string& source, const std::string& directory,
                 const Json& config) {
  std::map<std::string, Tensor> tensors;
  if (!source.empty()) {
    const Checkpoint checkpoint(source);
    for (const std::string& name : checkpoint.names()) tensors[name] = checkpoint.tensor(name);
  }
  std::map<std::string, Tensor>
      own_head;  // beside a plain body, when config says that the head is ours
  const Transformer* transformer = dynamic_cast<const Transformer*>(&model);
  const bool unties = transformer != nullptr && transformer->untied();
  for (const Site& site : model.sites()) {
    if (site.kind != SiteKind::Weight) continue;
    const WeightSlot& slot = model.slot(site);
    const bool ours = config.contains("attune_pool") && starts_with(site.name, "head.");
    std::map<std::string, Tensor>& target = ours ? own_head : tensors;
    if (slot.present() && !slot.weight_name.empty()) {
      Tensor weight = slot.dense();
      // Where the output is tied, transformers scales what enters it; where it is not, it does not.
      if (unties && site.name == "head.proj") weight = weight * transformer->spec().head.scale;
      target[slot.weight_name] = slot.as_stored(weight);
    }
    if (slot.bias.defined() && !slot.bias_name.empty()) target[slot.bias_name] = slot.bias;
  }
  if (transformer != nullptr) write_other_names(*transformer, tensors);
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    fail(ErrorCode::Io, "writing a checkpoint: the directory {} cannot be made: {}", directory,
         error.message());
  if (!own_head.empty())
    save_safetensors(directory + "/attune.safetensors", {own_head.begin(), own_head.end()});
  Json merged = model.config();
  merged.update(config);
  if (unties) merged["tie_word_embeddings"] = false;
  if (unties && merged.contains("scale_decoder_outputs")) merged["scale_decoder_outputs"] = false;
  if (transformer != nullptr) add_new_biases(*transformer, tensors, merged);
  save_checkpoint(directory, {tensors.begin(), tensors.end()});
  write_file_atomic(directory + "/config.json", merged.dump(2) + "\n");
  if (!source.empty()) copy_text_files(source, directory);
}

}  // namespace attune
