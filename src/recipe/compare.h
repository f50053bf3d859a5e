#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "recipe/recipe.h"

namespace attune {

/// What `attune compare` runs: one recipe with several methods and seeds.
struct CompareRequest {
  Recipe recipe;
  std::vector<std::string> methods;  // "lora", "full", or "wide={lora: {rank: 64}}": a label first
  int64_t seeds = 3;                 // recipe.seed, recipe.seed + 1, ...
  std::string output;                // the folder that holds every run and the table
  bool overwrite = false;            // runs of another recipe are made anew
  std::string program;               // this program: each run is a process of its own
};

/// Every run of the comparison by method and seed, each in its own process (so that its peak memory
/// is its own) and its own folder OUTPUT/LABEL-seed-N. What is finished already is not run again,
/// what was interrupted goes on; a run of another recipe is refused before anything starts, naming
/// the key that differs, or with `overwrite` made anew. `finished` is called with each method's row
/// as its last seed ends:
/// {"method", "metrics": {name, or NAME/name of a set of eval_on: {"mean", "sd", "values"}},
/// "trainable", "head", "stored_bytes", "seconds", "tokens_per_second", "peak_bytes", "seeds"}; the
/// rows so far are written to OUTPUT/compare.json and OUTPUT/compare.md. Returns the exit status:
/// 0, or that of the first run that failed; `rows` gets the finished rows.
int compare(const CompareRequest& request, const std::function<void(const Json& row)>& finished,
            Json& rows);

/// The rows as a Markdown table.
std::string compare_table(const Json& rows);

}  // namespace attune
