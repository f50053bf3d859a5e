#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/node.h"
#include "core/storage.h"
#include "train/schedule.h"

namespace attune {

/// One file of examples.
struct DataFile {
  std::string path;
  std::map<std::string, std::string> columns;  // role -> column, for this file alone
  int64_t limit = 0;                           // rows read; 0: all
  double weight = 0;                           // of a training mixture; 0: none is stated
  std::string name;                            // eval_on: leads the names of its metrics
};

/// A registered thing chosen by name, with the options the user gave; its registry checks them.
struct NamedOptions {
  std::string name;
  Json options = Json::object();
  std::string path;  // leads messages: "recipe.yaml:7:5: methods[0]"
};

/// A training recipe: typed, checked, every default filled in.
struct Recipe {
  std::string model, task, init_from, output;
  std::vector<DataFile> train, eval, eval_on;
  double eval_share =
      0;  // evaluation rows held out of train: in (0, 1) a share, from 1 a count; 0: none
  std::map<std::string, std::string> columns;
  int64_t max_length = 0;  // tokens; 0: what the model takes
  std::string too_long = "truncate";
  bool skip_bad_rows = false, header = true;

  std::vector<NamedOptions> methods, policies;  // no methods: full fine-tuning
  NamedOptions objective;                       // "auto": the task's own
  std::string pool = "auto";
  double head_dropout = -1;  // -1: the checkpoint's
  StorageOptions storage;    // of the frozen weights
  double label_smoothing = 0;
  Json class_weights;  // null, "balanced", or {label: weight}

  // One of epochs, steps and minutes is positive.
  double epochs = 3;
  int64_t steps = 0;
  double minutes = 0;
  int64_t batch_tokens = 2048,
          batch_size = 0;  // one of them is positive: packed rows, or examples, a micro-batch
  int64_t accumulate = 1;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  double lr = 0;                        // of all; 0: every method's own
  std::map<std::string, double> rates;  // where lr is 0: by method, and "head"; others are auto
  Schedule schedule;
  double clip = 1;  // 0: off
  std::string precision = "auto";
  int recompute = 0;  // blocks of each stack that keep their input alone; -1: all
  Interval eval_every, save_every;
  int64_t log_every = 10, keep = 2;
  /// "": the last state is kept; "auto": the task's main metric; NAME/metric: of a set of eval_on.
  std::string best_metric;
  int64_t patience = 0;
  uint64_t seed = 1;
  int threads = 0;  // 0: all this process may use

  /// The recipe as data, every default included; reading it again gives the same recipe.
  Json resolved() const;
  std::string resolved_yaml() const;
  /// The recipe as it is recorded: what it names on this machine under absolute paths, so that it
  /// means the same from any folder. Names that are looked up elsewhere stay names.
  Recipe located() const;
  /// Checks a parsed recipe. Errors: BadInput naming file, line, column and key.
  static Recipe from_node(const Node& node);
};

/// Reads a recipe file ("-": standard input is not one), lays the flags of recipe_from_flags over
/// it, and applies
/// `--set path=value` overrides in order. Errors: NotFound, BadInput.
Recipe load_recipe(const std::string& path, const std::vector<std::string>& sets,
                   const Json& flags = Json::object());

/// The recipe that the flags of `attune train` describe: model, task, train, eval, method, output,
/// columns, epochs, lr, batch_size, batch_tokens, max_length, seed, threads; absent or null ones
/// take the recipe's defaults. Errors: BadInput naming the flag.
Recipe recipe_from_flags(const Json& args, const std::vector<std::string>& sets);

}  // namespace attune
