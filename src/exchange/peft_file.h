#pragma once
#include <map>
#include <string>

#include "exchange/module_names.h"
#include "exchange/peft_type.h"

namespace attune {

/// adapter_model.safetensors sorted by what its tensors belong to.
struct PeftFile {
  struct Found {
    PeftModule adapted;   // what the type makes of the module
    Tensor weight, bias;  // values of the module's own tensors
    bool rows = false;    // of `weight` the base's but for some tokens'
  };
  std::map<const ModuleNames::Module*, Found> modules;
  std::map<std::string, Tensor> shared;
  /// The spelling of the file's module names.
  bool prefixed = true, newer = false;
  std::string name_of(const ModuleNames& names, const ModuleNames::Module& module) const {
    return names.spelled(module, newer, !prefixed);
  }
};

/// Errors: NotFound; Corrupt; Unsupported for a pickle, or a tensor of a kind that the type does
/// not have; BadInput when this model lacks a module that the file changes.
PeftFile read_peft_file(const std::string& directory, const PeftType& type,
                        const PeftTargets& targets, const ModuleNames& names, const Model& model,
                        const std::string& task_type);

}  // namespace attune
