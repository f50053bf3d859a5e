#pragma once
#include <string>
#include <vector>

#include "nn/spec.h"

namespace attune {

/// Builds the table of checkpoint names of a family.
class NameTable {
 public:
  /// A module with `weight` and perhaps `bias`; further entries are other spellings of its name.
  NameRule& module(const std::string& site, const std::vector<std::string>& spellings, bool bias) {
    NameRule rule;
    rule.site = site;
    rule.weight = spellings[0] + ".weight";
    if (bias) rule.bias = spellings[0] + ".bias";
    for (size_t i = 1; i < spellings.size(); ++i)
      rule.others.emplace_back(spellings[i] + ".weight", bias ? spellings[i] + ".bias" : "");
    rules_.push_back(std::move(rule));
    return rules_.back();
  }
  /// A lone tensor.
  NameRule& tensor(const std::string& site, const std::vector<std::string>& spellings) {
    NameRule rule;
    rule.site = site;
    rule.weight = spellings[0];
    for (size_t i = 1; i < spellings.size(); ++i) rule.others.emplace_back(spellings[i], "");
    rules_.push_back(std::move(rule));
    return rules_.back();
  }
  std::vector<NameRule> take() { return std::move(rules_); }

 private:
  std::vector<NameRule> rules_;
};

}  // namespace attune
