#pragma once
#include <string>
#include <vector>

#include "core/model.h"

namespace attune {

/// The tensors of a model as modules of transformers' class with a head.
class ModuleNames {
 public:
  explicit ModuleNames(const Model& model);

  struct Module {
    std::string name;   // "bert.encoder.layer.0.attention.self.query"
    std::string newer;  // in later releases of transformers; the same where they kept the name
    Site site;          // the first site that it serves
    bool in_base;       // part of the bare base model (its name starts with the prefix)
    int uses = 1;       // sites that it serves: more than one where layers share a module
  };
  const std::vector<Module>& all() const { return modules_; }
  /// "bert.", or "" when the body's modules do not share a first part.
  const std::string& prefix() const { return prefix_; }
  /// The module meant by a name in either spelling, with or without prefix: the longest common
  /// tail; null when there is none. Errors: BadInput when two fit equally well.
  const Module* find(const std::string& name) const;
  const Module& of(const Site& site) const;
  /// The spelling of one release, and perhaps the name in the bare base model's class.
  std::string spelled(const Module& module, bool newer, bool bare) const;
  std::string bare(const Module& module) const { return spelled(module, false, true); }

 private:
  std::vector<Module> modules_;
  std::string prefix_;
};

}  // namespace attune
