#pragma once
#include "recipe/recipe.h"

namespace attune {

/// Reads the recipe's `data` and its `eval_on`, which may also stand under `data`. Errors: BadInput
/// naming file, line, column and key.
void read_data(const Node& data, const Node& eval_on, Recipe& recipe);

}  // namespace attune
