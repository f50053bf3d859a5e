#pragma once
#include <string>
#include <vector>

#include "exchange/module_names.h"
#include "exchange/peft_type.h"

namespace attune {

/// A module's own tensors, as a directory holds them.
struct PeftWhole {
  const ModuleNames::Module* module = nullptr;
  Tensor weight, bias;
};

/// One directory, ready to be written.
struct PeftDirectory {
  PeftPiece piece;
  PeftType type;
  std::vector<PeftWhole> saved;   // modules_to_save
  std::vector<PeftWhole> biases;  // trained beside frozen weights
  std::string bias = "none";
};

/// What all directories of one export share.
struct PeftContext {
  const ModuleNames& names;
  std::string base_model;
  std::string task_type;  // "" for null
  bool bare = false;      // names of the bare base model's class
  bool newer = false;     // as transformers spells them from 2026 on
  std::string name_of(const ModuleNames::Module& module) const {
    return names.spelled(module, newer, bare);
  }
};

/// Writes adapter_config.json, adapter_model.safetensors and README.md. Errors: Io.
void write_peft(const PeftContext& context, const PeftDirectory& content,
                const std::string& directory);

/// Short names ("attention.self.query") where they select exactly the modules of these names, else
/// the names themselves.
std::vector<std::string> shortest_targets(const PeftContext& context,
                                          const std::vector<std::string>& full);

}  // namespace attune
