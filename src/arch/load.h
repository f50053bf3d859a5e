#pragma once
#include <memory>
#include <string>
#include <vector>

#include "arch/registry.h"
#include "core/model.h"
#include "nn/spec.h"

namespace attune {

struct LoadOptions {
  Numerics numerics;
  /// What the task asks; without `own_head`, the head named by config.json's `architectures`.
  HeadRequest head;
  bool own_head = false;
  uint64_t seed = 1;  // of tensors the checkpoint lacks
};

/// What did not match between a checkpoint and the model, as checkpoint names.
struct LoadReport {
  std::vector<std::string> fresh;       // newly initialised
  std::vector<std::string> unexpected;  // in the file, used by nothing
  std::string pool;                     // how the sequence head pools, "" when it has none
  /// One line a group, ready to print; empty when everything matched.
  std::vector<std::string> lines() const;
};

struct LoadedModel {
  std::unique_ptr<Model> model;
  LoadReport report;
  std::string directory;
  std::string fingerprint;  // SHA-256 over the checkpoint's tensors; empty until asked
                            // (checkpoint_fingerprint)
};

/// Loads a Hugging Face checkpoint directory: config.json, safetensors (one file or sharded), and
/// what says how to pool. Float tensors in the master type stay mapped. Errors: NotFound; Corrupt
/// when config.json and the tensors disagree (names both); Unsupported for an unknown model_type.
LoadedModel load_model(const std::string& directory, const LoadOptions& options);

/// A model of this config with random tensors (normal, the config's initializer_range), keyed by
/// the seed.
std::unique_ptr<Model> init_model(const Json& config, const std::string& config_path,
                                  const LoadOptions& options);

/// How a sentence-transformers checkpoint pools: "first", "last", "mean", "max", or "" when it says
/// nothing. Errors: Unsupported for another way or several, naming file and way.
std::string checkpoint_pool(const std::string& directory);
/// The head named by config.json's `architectures`, with its number of labels.
HeadRequest head_of_config(const Json& config);
/// num_labels, else the size of id2label, else 2.
int64_t label_count(const Json& config);
/// The labels of id2label in their order; "LABEL_3" where it names none.
std::vector<std::string> label_names(const Json& config);

std::string checkpoint_fingerprint(const std::string& directory);

/// Copies what turns text and images into input and says how text is generated (tokenizer, chat
/// template, processor, generation_config.json) where `from` has it; "": this folder. Errors: Io.
void copy_text_files(const std::string& from, const std::string& to);

/// Writes the model as a Hugging Face checkpoint: its tensors under their checkpoint names, every
/// tensor of the source directory that the model does not hold, config.json with `config` merged
/// in, and the tokenizer files. Makes the directory where there is none. Errors: Io.
void write_model(const Model& model, const std::string& source, const std::string& directory,
                 const Json& config);

}  // namespace attune
