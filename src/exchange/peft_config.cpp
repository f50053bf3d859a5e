#include "exchange/peft_config.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "exchange/regex.h"

namespace attune {

namespace {

/// Fields read elsewhere, or without a part in the computation of a trained adapter.
const std::vector<std::string>& known_fields() {
  static const std::vector<std::string> fields{"peft_type",
                                               "task_type",
                                               "base_model_name_or_path",
                                               "revision",
                                               "inference_mode",
                                               "auto_mapping",
                                               "peft_version",
                                               "r",
                                               "lora_alpha",
                                               "lora_dropout",
                                               "use_rslora",
                                               "bias",
                                               "target_modules",
                                               "exclude_modules",
                                               "modules_to_save",
                                               "layers_to_transform",
                                               "layers_pattern",
                                               "rank_pattern",
                                               "alpha_pattern",
                                               "init_lora_weights",
                                               "megatron_core",
                                               "qalora_group_size",
                                               "runtime_config",
                                               "eva_config"};
  return fields;
}

/// A value that says "not used".
bool is_off(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         (value.is_string() && value.get<std::string>().empty()) ||
         (value.is_structured() && value.empty());
}

class Reader {
 public:
  Reader(const Json& config, std::string path) : config_(config), path_(std::move(path)) {}

  template <class T>
  T get(const char* key, T fallback) const {
    if (!present(key)) return fallback;
    try {
      return config_.at(key).get<T>();
    } catch (const Json::exception&) {
      wrong(key);
    }
  }
  bool present(const char* key) const {
    return config_.contains(key) && !config_.at(key).is_null();
  }
  /// A string, or a list of strings.
  void names(const char* key, std::string& one, std::vector<std::string>& many) const {
    if (!present(key)) return;
    if (config_.at(key).is_string()) {
      one = config_.at(key).get<std::string>();
    } else {
      many = get<std::vector<std::string>>(key, {});
    }
  }
  template <class T>
  std::vector<std::pair<std::string, T>> pattern(const char* key) const {
    std::vector<std::pair<std::string, T>> result;
    if (!present(key)) return result;
    if (!config_.at(key).is_object()) wrong(key);
    const Json& object = config_.at(key);
    for (Json::const_iterator it = object.begin(); it != object.end(); ++it) {
      if (!it->is_number()) wrong(key);
      result.emplace_back(it.key(), it->get<T>());
    }
    return result;
  }
  [[noreturn]] void wrong(const char* key) const {
    fail(ErrorCode::Corrupt, "{}: \"{}\" is {}, which is not of the type that PEFT writes there",
         path_, key, config_.at(key).dump());
  }

 private:
  const Json& config_;
  std::string path_;
};

void refuse_unknown(const Json& config, const std::string& path) {
  for (Json::const_iterator it = config.begin(); it != config.end(); ++it) {
    const bool known = std::count(known_fields().begin(), known_fields().end(), it.key()) > 0;
    if (known || is_off(*it)) continue;
    fail(ErrorCode::Unsupported,
         "{}: \"{}\" is {}; this build computes LoRA without it, so the outputs would differ. "
         "Merge the adapter in PEFT "
         "(merge_and_unload) and use the merged model",
         path, it.key(), it->dump());
  }
  if (!config.contains("init_lora_weights")) return;
  const Json& init = config.at("init_lora_weights");
  // The others (pissa, olora, corda, loftq, ...) also change the base model's weights.
  const bool plain = init.is_boolean() || init.is_null() || init == "gaussian" || init == "eva" ||
                     init == "orthogonal";
  if (!plain)
    fail(ErrorCode::Unsupported,
         "{}: \"init_lora_weights\" is {}, which changed the base model's weights at the start; "
         "save it from PEFT as "
         "plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)",
         path, init.dump());
}

bool matches_suffix(const std::string& module, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return module == name || ends_with(module, "." + name);
  });
}

}  // namespace

LoraConfig parse_lora_config(const Json& config, const std::string& path) {
  const Reader reader(config, path);
  const std::string type = reader.get<std::string>("peft_type", "");
  if (type != "LORA")
    fail(ErrorCode::Unsupported, "{}: \"peft_type\" is \"{}\"; this build reads LORA", path, type);
  refuse_unknown(config, path);
  LoraConfig lora;
  lora.path = path;
  lora.task_type = reader.get<std::string>("task_type", "");
  lora.rank = reader.get<int64_t>("r", 8);
  lora.alpha = reader.get<double>("lora_alpha", 8);
  lora.dropout = reader.get<double>("lora_dropout", 0);
  lora.rslora = reader.get<bool>("use_rslora", false);
  lora.bias = reader.get<std::string>("bias", "none");
  if (lora.bias != "none" && lora.bias != "all" && lora.bias != "lora_only")
    fail(ErrorCode::Unsupported, "{}: \"bias\" is \"{}\"; known: none, all, lora_only", path,
         lora.bias);
  reader.names("target_modules", lora.target_regex, lora.targets);
  std::string lowered = lora.target_regex;
  std::transform(lowered.begin(), lowered.end(), lowered.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  lora.all_linear = lowered == "all-linear";
  reader.names("exclude_modules", lora.exclude_regex, lora.excludes);
  lora.saved = reader.get<std::vector<std::string>>("modules_to_save", {});
  if (reader.present("layers_to_transform")) {
    if (config.at("layers_to_transform").is_number_integer())
      lora.layers = {reader.get<int64_t>("layers_to_transform", 0)};
    else
      lora.layers = reader.get<std::vector<int64_t>>("layers_to_transform", {});
  }
  std::string one;
  reader.names("layers_pattern", one, lora.layer_patterns);
  if (!one.empty()) lora.layer_patterns = {one};
  lora.rank_pattern = reader.pattern<int64_t>("rank_pattern");
  lora.alpha_pattern = reader.pattern<double>("alpha_pattern");
  return lora;
}

bool LoraConfig::targets_module(const std::string& module) const {
  const std::string where = path;
  if (!exclude_regex.empty() &&
      regex_full_match(exclude_regex, module, where + ": exclude_modules"))
    return false;
  if (matches_suffix(module, excludes)) return false;
  for (const std::string& name : saved)
    if (regex_prefix_match("(?:^|.*\\.)" + name + "($|\\..*)", module, "",
                           where + ": modules_to_save"))
      return false;
  if (all_linear) return true;
  if (!target_regex.empty())
    return regex_full_match(target_regex, module, where + ": target_modules");
  if (std::count(targets.begin(), targets.end(), module) > 0) return true;
  if (!matches_suffix(module, targets)) return false;
  if (layers.empty()) return true;
  std::optional<std::string> index;
  if (layer_patterns.empty()) {
    index = regex_prefix_match(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", module, "idx", where);
  } else {
    for (size_t i = 0; i < layer_patterns.size() && !index; ++i)
      index = regex_prefix_match("(?:^|.*?\\.)" + layer_patterns[i] + "\\.(?P<idx>\\d+)\\.", module,
                                 "idx", where + ": layers_pattern");
  }
  return index && index->size() < 10 &&
         std::count(layers.begin(), layers.end(), std::stoll(*index)) > 0;
}

namespace {
template <class T>
T value_of(const std::vector<std::pair<std::string, T>>& patterns, const std::string& module,
           T fallback, const std::string& where) {
  for (const std::pair<std::string, T>& entry : patterns)
    if (regex_full_match("(?:.*\\.)?(?:" + entry.first + ")", module, where)) return entry.second;
  return fallback;
}
}  // namespace

int64_t LoraConfig::rank_of(const std::string& module) const {
  return value_of(rank_pattern, module, rank, path + ": rank_pattern");
}
double LoraConfig::alpha_of(const std::string& module) const {
  return value_of(alpha_pattern, module, alpha, path + ": alpha_pattern");
}

}  // namespace attune
