#pragma once
#include <string>

#include "base/json.h"
#include "core/model.h"

namespace attune {

/// How the frozen projections inside the blocks are kept: as they are, or as codes of 8 or 4 bits
/// (kernels/quantized.h). Embeddings, norms, biases and heads stay as they are. Methods train on
/// top: no codes ever change.
struct StorageOptions {
  std::string kind = "full";  // full | int8 | nf4
  bool double_quant = true;   // nf4: the scales are codes too
  Names sites = {"*"};        // of the projections inside blocks, those that become codes
  /// `storage:` of a recipe or an attune.json: "nf4", or {"nf4": {"double_quant": false, ...}}.
  Json to_json() const;
  /// Reads what to_json wrote. Throws Json::exception.
  static StorageOptions from_json(const Json& json);
};

struct StorageReport {
  int64_t weights = 0;            // elements kept as codes
  int64_t bytes = 0, before = 0;  // of them, and in the master type
};

/// Replaces the weights by codes, before any method is attached. A tensor that several sites share
/// becomes codes once. Errors: BadInput when the globs match no projection of a block.
StorageReport store(Model& model, const StorageOptions& options);

/// "full", "int8", "nf4".
const char* storage_name(const WeightSlot& slot);

}  // namespace attune
