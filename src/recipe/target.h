#pragma once
#include <memory>
#include <string>
#include <vector>

#include "arch/load.h"
#include "core/adaptation.h"
#include "methods/registry.h"
#include "tasks/registry.h"
#include "text/tokenizer.h"
#include "train/adapter_files.h"

namespace attune {

/// What a command works on: a run, an adapter or a checkpoint directory, with further adapters on
/// top.
struct TargetRequest {
  std::string name;                   // RUN, adapter or MODEL
  std::vector<std::string> adapters;  // DIR or DIR:0.5; ours or PEFT's
  std::string task;  // for a bare model: how to read its head; "" guesses from its config
  std::map<std::string, std::string> columns;
  std::string precision = "auto";
  bool need_task = true;
  StorageOptions storage;  // of a model that no run of ours says it of
};

struct Target {
  std::string base_directory;  // of the checkpoint
  std::string run;             // "" when a bare model was given
  AdapterCard card;
  Registry<Tuner> methods;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string tokenizer_error;  // why there is none, where its files are of a kind that is not read
  LoadedModel loaded;
  std::unique_ptr<Adaptation> adaptation;
  std::unique_ptr<Task> task;  // null when the model has no head that a task reads
  Model& model() { return *loaded.model; }
  /// Errors: Unsupported when text cannot be read for `tokenizer_error`. `where`: the line.
  void check_text(const std::string& where) const;
};

/// Errors: NotFound (says where it looked), Corrupt, BadInput when an adapter belongs to another
/// base.
std::unique_ptr<Target> open_target(const TargetRequest& request);

/// The folder of a run's or adapter's attune.json; "" when `name` is neither.
std::string adapter_folder(const std::string& name);
/// The directory of `--adapter DIR` or `DIR:0.5`. Errors: BadInput for something else after the
/// colon; NotFound when it holds no adapter, of ours or of PEFT.
std::string adapter_directory(const std::string& text);
/// The checkpoint that an adapter of ours was trained on: where it was then, else found by its
/// name. Errors: NotFound, naming both.
std::string base_of_adapter(const AdapterCard& card, const std::string& folder);

}  // namespace attune
