#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/adaptation.h"
#include "methods/registry.h"
#include "recipe/recipe.h"

namespace attune {

/// Learning rates by method, where the recipe gives none for all.
struct Rates {
  double lr = 0;                          // the smallest, that of the optimizer
  std::map<std::string, double> by_name;  // what the resolved recipe says
  std::vector<NamedOptions> policies;     // what makes the others larger: tensor_lr, head_lr
  std::string line;                       // "lora 0.002, bias 0.01, head 0.01"
};

/// Every method learns at the recipe's rate for it, else at its own (Entry::learning_rate), and a
/// head that the checkpoint lacks at that of the method `head` unless a policy head_lr stands in
/// the recipe. `width`: of the model's rows.
Rates rates_of(const Recipe& recipe, const Registry<Tuner>& methods,
               const std::vector<Param>& trained, int64_t width);

}  // namespace attune
