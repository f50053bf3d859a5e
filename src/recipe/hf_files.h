#pragma once
#include <functional>
#include <string>

#include "recipe/session.h"
#include "recipe/target.h"

namespace attune {

/// config.json fields that describe a task's head: labels, problem type, class name, pooling.
Json head_config(const Model& model, const Task* task);
/// Folds the adapter into the weights and writes a plain Hugging Face checkpoint; the model in
/// memory is left as it was. `check` may look at the complete files, and throw, before they take
/// the place of a directory that exists, which happens in one step. Errors: Unsupported, naming
/// edits that cannot be folded; nothing is left behind then.
void write_merged(Model& model, Adaptation& adaptation, const Task* task, const std::string& base,
                  const std::string& directory,
                  const std::function<void(const std::string& folder)>& check = {});
/// RUN/model of a full fine-tuning run; where another of its methods cannot be folded, a warning.
void write_run_model(Session& session, const std::string& run);

}  // namespace attune
