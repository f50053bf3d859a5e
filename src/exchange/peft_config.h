#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace attune {

/// adapter_config.json of a LORA adapter, checked: everything that is not here has no effect on the
/// computation.
struct LoraConfig {
  std::string path;  // of the file, for messages
  std::string task_type;
  int64_t rank = 8;
  double alpha = 8, dropout = 0;
  bool rslora = false;
  std::string bias = "none";                   // none | all | lora_only
  bool all_linear = false;                     // target_modules: "all-linear"
  std::string target_regex, exclude_regex;     // when the field is one expression
  std::vector<std::string> targets, excludes;  // when it is a list
  std::vector<std::string> saved;              // modules_to_save
  std::vector<int64_t> layers;                 // layers_to_transform; empty: all
  std::vector<std::string> layer_patterns;
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  /// Does PEFT put an update on the module of this name?
  bool targets_module(const std::string& module) const;
  int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
};

/// Errors: Unsupported, naming the peft_type or the field; Corrupt for a value of the wrong type.
LoraConfig parse_lora_config(const Json& config, const std::string& path);

}  // namespace attune
