#pragma once
#include <map>
#include <string>
#include <vector>

#include "recipe/recipe.h"

// The names in a recipe and their options, checked against the registries and completed with every
// default. All throw BadInput that begins with place and key path and names the nearest known one.

namespace attune {

/// Something chosen by name, its options not checked yet.
struct Named {
  std::string name;
  Node options;      // a mapping, or null for all defaults
  std::string list;  // "methods[0]"
  Node whole;
  std::string where() const;  // "recipe.yaml:7:5: methods[0]"
};

/// `lora`, or `{lora: {rank: 8}}`.
Named read_named(const Node& node, const std::string& path);
/// A list of them, or one alone; none, null and [] are the empty list.
std::vector<Named> read_named_list(const Node& node, const std::string& path);

std::vector<NamedOptions> checked_methods(const Node& node);
std::vector<NamedOptions> checked_policies(const Node& node);
NamedOptions checked_objective(const Node& node);
/// {lora: 2e-3, head: 1e-2}: learning rates by method.
std::map<std::string, double> checked_rates(const Node& node, const std::string& path);
void check_task(const std::string& task, const Node& node);
void check_metric(const std::string& metric, const Node& node);

}  // namespace attune
