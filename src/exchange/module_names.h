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
    std::string name;  // "bert.encoder.layer.0.attention.self.query"
    Site site;         // the first site of its storage
    bool in_base;      // part of the bare base model (its name starts with the prefix)
  };
  const std::vector<Module>& all() const { return modules_; }
  /// "bert.", or "" when the body's modules do not share a first part.
  const std::string& prefix() const { return prefix_; }
  /// The module meant by a name with or without prefix: the longest common tail; null when there is
  /// none. Errors: BadInput when two fit equally well.
  const Module* find(const std::string& name) const;
  const Module& of(const Site& site) const;
  /// The name in the bare base model's class.
  std::string bare(const Module& module) const;

 private:
  std::vector<Module> modules_;
  std::string prefix_;
};

}  // namespace attune
