#pragma once
#include <string>

#include "recipe/session.h"
#include "recipe/target.h"

namespace attune {

/// config.json fields that describe a task's head: labels, problem type, class name, pooling.
Json head_config(const Model& model, const Task* task);
/// Folds the adapter into the weights and writes a plain Hugging Face checkpoint; the model in
/// memory is left as it was. A directory that exists is replaced, in one step. Errors: Unsupported,
/// naming edits that cannot be folded.
void write_merged(Model& model, Adaptation& adaptation, const Task* task, const std::string& base,
                  const std::string& directory);
/// RUN/model of a full fine-tuning run.
void write_run_model(Session& session, const std::string& run);

}  // namespace attune
