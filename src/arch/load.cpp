#include "arch/load.h"

#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "core/attachment.h"
#include "io/checkpoint.h"
#include "nn/transformer.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

int64_t label_count(const Json& config) {
  if (config.contains("num_labels") && config["num_labels"].is_number_integer())
    return config["num_labels"].get<int64_t>();
  if (config.contains("id2label") && config["id2label"].is_object() && !config["id2label"].empty())
    return static_cast<int64_t>(config["id2label"].size());
  return 2;
}

HeadRequest head_of_config(const Json& config) {
  HeadRequest head;
  const std::string name = config.contains("architectures") && config["architectures"].is_array() &&
                                   !config["architectures"].empty() &&
                                   config["architectures"][0].is_string()
                               ? config["architectures"][0].get<std::string>()
                               : "";
  if (ends_with(name, "ForSequenceClassification")) head.kind = HeadKind::Sequence;
  if (ends_with(name, "ForTokenClassification")) head.kind = HeadKind::Token;
  if (ends_with(name, "ForQuestionAnswering")) head.kind = HeadKind::Span;
  if (ends_with(name, "ForMaskedLM") || ends_with(name, "ForPreTraining"))
    head.kind = HeadKind::MaskedLm;
  if (head.kind == HeadKind::Span) head.labels = 2;
  if (head.kind == HeadKind::Sequence)
    head.pool = "pooler";  // the class's own way, whatever else the folder says
  if (config.contains("attune_pool") &&
      config["attune_pool"].is_string())  // our own head beside a plain body
    head = {HeadKind::Sequence, label_count(config), config["attune_pool"].get<std::string>()};
  if (head.kind == HeadKind::Sequence || head.kind == HeadKind::Token)
    head.labels = label_count(config);
  return head;
}

std::string checkpoint_pool(const std::string& directory) {
  std::string pooling = directory + "/1_Pooling/config.json";
  const std::string modules = directory + "/modules.json";
  if (file_exists(modules))
    for (const Json& module : read_json(modules))
      if (ends_with(module.value("type", ""), "Pooling"))
        pooling = directory + "/" + module.value("path", "1_Pooling") + "/config.json";
  if (!file_exists(pooling)) return "";
  const Json config = read_json(pooling);
  const std::string mode = config.value("pooling_mode", "");
  if (mode == "mean" || config.value("pooling_mode_mean_tokens", false)) return "mean";
  if (mode == "max" || config.value("pooling_mode_max_tokens", false)) return "max";
  if (mode == "cls" || config.value("pooling_mode_cls_token", false)) return "first";
  return "";
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

/// Every spelling under which a tensor may be stored: with and without the family's prefix, old
/// LayerNorm names.
std::vector<std::string> spellings(const std::string& name,
                                   const std::vector<std::string>& prefixes) {
  std::vector<std::string> names{name};
  for (const std::string& prefix : prefixes)
    names.push_back(starts_with(name, prefix) ? name.substr(prefix.size()) : prefix + name);
  const size_t plain = names.size();
  for (size_t i = 0; i < plain; ++i) {
    if (ends_with(names[i], "LayerNorm.weight"))
      names.push_back(names[i].substr(0, names[i].size() - 6) + "gamma");
    if (ends_with(names[i], "LayerNorm.bias"))
      names.push_back(names[i].substr(0, names[i].size() - 4) + "beta");
  }
  return names;
}

std::vector<int64_t> weight_shape(const Site& site) {
  if (site.weight == WeightKind::Projection) return {site.out, site.in};
  if (site.weight == WeightKind::Table) return {site.in, site.out};
  return {site.out};
}

/// Fills one model from a checkpoint, or from the seed where `checkpoint` is null.
class Filler {
 public:
  Filler(Transformer& model, const Checkpoint* checkpoint, const std::string& where, uint64_t seed)
      : model_(model), checkpoint_(checkpoint), where_(where), seed_(seed) {
    if (checkpoint != nullptr && file_exists(where + "/attune.safetensors"))
      head_file_ = std::make_unique<SafetensorsFile>(where + "/attune.safetensors");
  }

  LoadReport fill() {
    for (const NameRule& rule : model_.spec().names) {
      const Site& site = model_.site(rule.site);
      WeightSlot& slot = model_.slot(site);
      slot.module = ends_with(rule.weight, ".weight")
                        ? rule.weight.substr(0, rule.weight.size() - 7)
                        : rule.weight;
      slot.weight_name = rule.weight;
      slot.bias_name = rule.bias;
      slot.weight = tensor(site, slot, rule.weight, weight_shape(site), false);
      if (!rule.bias.empty()) slot.bias = tensor(site, slot, rule.bias, {site.out}, true);
    }
    check_complete();
    report_.pool = model_.spec().head.pool_name;
    if (checkpoint_ != nullptr) find_unexpected();
    return std::move(report_);
  }

 private:
  Tensor tensor(const Site& site, WeightSlot& slot, const std::string& name,
                const std::vector<int64_t>& shape, bool bias) {
    if (checkpoint_ != nullptr) {
      for (const std::string& spelling : spellings(name, model_.spec().prefixes)) {
        if (!checkpoint_->has(spelling)) continue;
        used_.insert(spelling);
        const Tensor stored = checkpoint_->tensor(spelling);
        if (stored.sizes().vec() == shape) {
          (bias ? slot.bias_name : slot.weight_name) = spelling;
          return converted(stored, spelling);
        }
        if (site.name == "head.proj") {
          report_.fresh.push_back(format("{} (the checkpoint's has shape {}, this task needs {})",
                                         name, shape_text(stored.sizes().vec()),
                                         shape_text(shape)));
          slot.fresh = true;
          return draw(site, name, shape, bias);
        }
        fail(ErrorCode::Corrupt,
             "loading {}: tensor {} has shape {}, but config.json makes it {}; the two files do "
             "not belong together",
             where_, spelling, shape_text(stored.sizes().vec()), shape_text(shape));
      }
      if (head_file_ != nullptr && head_file_->has(name) &&
          head_file_->tensor(name).sizes().vec() == shape)
        return converted(head_file_->tensor(name), name);
      if (!starts_with(site.name, "head."))
        fail(ErrorCode::Corrupt,
             "loading {}: tensor {} is missing, which config.json asks for ({} layers, hidden size "
             "{})",
             where_, name, model_.spec().stack.layers, model_.spec().stack.hidden);
      report_.fresh.push_back(name);
    }
    slot.fresh = true;
    return draw(site, name, shape, bias);
  }

  static std::string shape_text(const std::vector<int64_t>& shape) {
    return format("[{}]", fmt::join(shape, ", "));
  }

  Tensor converted(const Tensor& stored, const std::string& name) const {
    if (!stored.is_floating_point())
      fail(ErrorCode::Corrupt,
           "loading {}: tensor {} has a dtype that is not floating point; weights are expected",
           where_, name);
    return dense_as(stored, model_.numerics().master());
  }

  Tensor draw(const Site& site, const std::string& name, const std::vector<int64_t>& shape,
              bool bias) const {
    const at::ScalarType type = model_.numerics().master();
    if (bias || site.weight == WeightKind::Vector) return at::zeros(shape, type);
    if (site.weight == WeightKind::Norm) return at::ones(shape, type);
    const uint64_t key = Stream64(seed_, "init").with("model").with(name).key();
    return normal_tensor(key, shape, model_.spec().init_deviation, type);
  }

  void check_complete() const {
    for (const Site& site : model_.sites())
      if (site.kind == SiteKind::Weight && !model_.slot(site).weight.defined())
        fail(ErrorCode::Internal, "no checkpoint name leads to site {}", site.name);
  }

  void find_unexpected() {
    for (const std::string& name : checkpoint_->names()) {
      bool known = used_.count(name) > 0;
      for (const std::string& glob : model_.spec().ignored) known = known || glob_match(glob, name);
      if (!known) report_.unexpected.push_back(name);
    }
  }

  Transformer& model_;
  const Checkpoint* checkpoint_;
  std::unique_ptr<SafetensorsFile> head_file_;  // a head that transformers' classes cannot hold
  std::string where_;
  uint64_t seed_;
  LoadReport report_;
  std::set<std::string> used_;
};

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
  return spec;
}

}  // namespace

LoadedModel load_model(const std::string& directory, const LoadOptions& options) {
  const std::string config_path = directory + "/config.json";
  const Json config = read_json(config_path);
  const std::unique_ptr<Architecture> architecture = architecture_of(config, config_path);
  const Checkpoint checkpoint(directory);
  HeadRequest head = options.own_head ? options.head : head_of_config(config);
  if (head.kind == HeadKind::None)
    head.pool = checkpoint.has("pooler.dense.weight") || checkpoint.has("bert.pooler.dense.weight")
                    ? "pooler"
                    : "first";
  ModelSpec spec = spec_of(*architecture, config, config_path, head, checkpoint_pool(directory));
  LoadedModel loaded;
  std::unique_ptr<Transformer> model =
      std::make_unique<Transformer>(std::move(spec), options.numerics, config);
  loaded.report = Filler(*model, &checkpoint, directory, options.seed).fill();
  loaded.model = std::move(model);
  loaded.directory = directory;
  return loaded;
}

std::unique_ptr<Model> init_model(const Json& config, const std::string& config_path,
                                  const LoadOptions& options) {
  const std::unique_ptr<Architecture> architecture = architecture_of(config, config_path);
  HeadRequest head = options.own_head ? options.head : head_of_config(config);
  if (head.kind == HeadKind::None) head.pool = "pooler";
  std::unique_ptr<Transformer> model = std::make_unique<Transformer>(
      spec_of(*architecture, config, config_path, head, ""), options.numerics, config);
  Filler(*model, nullptr, config_path, options.seed).fill();
  return model;
}

void write_model(const Model& model, const std::string& source, const std::string& directory,
                 const Json& config) {
  std::map<std::string, Tensor> tensors;
  if (!source.empty()) {
    const Checkpoint checkpoint(source);
    for (const std::string& name : checkpoint.names()) tensors[name] = checkpoint.tensor(name);
  }
  std::map<std::string, Tensor>
      own_head;  // beside a plain body, when config says that the head is ours
  for (const Site& site : model.sites()) {
    if (site.kind != SiteKind::Weight) continue;
    const WeightSlot& slot = model.slot(site);
    const bool ours = config.contains("attune_pool") && starts_with(site.name, "head.");
    std::map<std::string, Tensor>& target = ours ? own_head : tensors;
    if (slot.weight.defined() && !slot.weight_name.empty()) target[slot.weight_name] = slot.weight;
    if (slot.bias.defined() && !slot.bias_name.empty()) target[slot.bias_name] = slot.bias;
  }
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    fail(ErrorCode::Io, "writing a checkpoint: the directory {} cannot be made: {}", directory,
         error.message());
  if (!own_head.empty())
    save_safetensors(directory + "/attune.safetensors", {own_head.begin(), own_head.end()});
  Json merged = model.config();
  merged.update(config);
  save_checkpoint(directory, {tensors.begin(), tensors.end()});
  write_file_atomic(directory + "/config.json", merged.dump(2) + "\n");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.txt",
                           "special_tokens_map.json", "added_tokens.json"})
    if (!source.empty() && file_exists(source + "/" + name))
      write_file_atomic(directory + "/" + name, read_file(source + "/" + name));
}

}  // namespace attune
