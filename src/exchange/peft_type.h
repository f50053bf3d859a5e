#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "core/adaptation.h"
#include "core/attachment.h"
#include "exchange/peft_config.h"
#include "io/safetensors.h"

namespace attune {

// ---- reading: a directory of PEFT -> tuners ----------------------------------------------------

/// What an adapter's file holds for one module.
struct PeftModule {
  std::string name;  // as the file spells it
  Site site;
  std::map<std::string, Tensor> parts;  // by the end of their key: "lora_A.weight"
  bool has(const std::string& part) const { return parts.count(part) > 0; }
};

using ModuleGroups = std::map<int64_t, std::vector<const PeftModule*>>;

/// A method of ours and what its tensors hold; buffers that are left out keep their initial value.
struct PeftTuner {
  std::string method;
  Json options = Json::object();
  NamedTensors tensors = {};  // "enc.0.self.q/down"
  /// Adds a site to the option "sites".
  void act_at(const Site& site) { options["sites"].push_back(site.name); }
  void set(const Site& site, const std::string& name, const Tensor& value) {
    tensors.emplace_back(site.name + "/" + name, value);
  }
};

/// A directory of PEFT as it was read, for a type to make tuners of.
class PeftSource {
 public:
  PeftSource(const PeftConfig& config, const Model& model, std::string where)
      : config(config), model(model), where(std::move(where)) {}
  const PeftConfig& config;
  const Model& model;
  std::string where;                          // the tensors' file, for messages
  std::vector<PeftModule> modules = {};       // in the model's order
  std::map<std::string, Tensor> shared = {};  // by their whole key: "base_model.vera_A"

  /// A tensor of a module; a size of -1 may be any. Errors: Corrupt when it is missing, or of
  /// another kind or shape than config and model make it.
  Tensor part(const PeftModule& module, const std::string& part, const std::vector<int64_t>& shape,
              bool integers = false);
  Tensor shared_tensor(const std::string& key, const std::vector<int64_t>& shape);
  /// Where the config's rank_pattern and alpha_pattern give a module other values than the tuner's
  /// options, the tuner's patterns do from here on. Result: the module's rank.
  int64_t by_pattern(PeftTuner& tuner, const PeftModule& module) const;
  /// The modules in groups that have one value each of a size: FIELD, or what FIELD_pattern says by
  /// the ends of names. Errors: Corrupt for a value below 1.
  ModuleGroups grouped(const std::string& field, int64_t fallback) const;
  /// Errors: Corrupt: the tensor's key and what is wrong with it.
  [[noreturn]] void corrupt(const PeftModule& module, const std::string& part,
                            const std::string& what) const;
  /// Errors: Corrupt, naming a tensor that no call has asked for.
  void check_all_used() const;

 private:
  std::set<std::string> used_ = {};
};

// ---- writing: tuners -> directories of PEFT ----------------------------------------------------

/// One tuner of a set.
class PeftView {
 public:
  PeftView(const Model& model, const Recorder& recorder, TunerSpec spec)
      : model_(model), recorder_(recorder), spec_(std::move(spec)) {}
  const Model& model() const { return model_; }
  const Recorder& recorder() const { return recorder_; }
  const std::string& method() const { return spec_.method; }
  /// Every option, defaults filled in.
  const Json& options() const { return spec_.options; }
  /// The sites of its edits, each once, in the order they were attached.
  std::vector<Site> sites() const;
  /// A tensor that it owns ("down"), in single precision unless it holds integers.
  Tensor tensor(const Site& site, const std::string& name) const;
  bool owns(const Site& site, const std::string& name) const { return find(site, name) != nullptr; }
  /// An option, or what the first matching glob of OPTION_pattern says for the site.
  double by_pattern(const char* option, const Site& site) const;

 private:
  const Owned* find(const Site& site, const std::string& name) const;
  const Model& model_;
  const Recorder& recorder_;
  TunerSpec spec_;
};

/// What one module becomes.
struct PeftUpdate {
  Site site;
  Json own = Json::object();  // settings of this module, by field: {"r": 4}
  std::map<std::string, Tensor> parts = {};
};

/// What a tuner, or several of one kind, become: one directory.
struct PeftPiece {
  std::string type;              // "LORA"
  Json config = Json::object();  // the type's fields, less those of single modules
  std::vector<PeftUpdate> updates = {};
  std::map<std::string, Tensor> shared = {};  // by whole key
  std::vector<std::string> notes = {};
  const PeftUpdate* find(const Site& site) const;
};

// ---- the table ----------------------------------------------------------------------------------

/// One peft_type: how its files look, and both directions.
struct PeftType {
  std::string name;                  // "LORA"
  std::vector<std::string> methods;  // ours that it holds
  /// Fields of adapter_config.json that are read, or have no effect on a trained adapter.
  std::vector<std::string> fields;
  std::vector<std::string> parts;     // ends of the keys of a module's tensors
  std::vector<std::string> shared;    // whole keys of tensors that belong to no module
  std::vector<std::string> repeated;  // parts that only repeat a shared tensor
  std::string bias_only;  // the value of "bias" for those of its modules; "": it trains none
  /// Settings of single modules, and the field that holds those that differ.
  std::vector<std::pair<std::string, std::string>> patterns;
  PeftConfig::Match match = PeftConfig::Match::WholeOrTail;  // of those fields' keys
  bool prompts = false;                                      // acts at no module
  /// The sites whose modules it can change; by default projections.
  std::function<bool(const Site&)> takes;
  std::function<std::vector<PeftTuner>(PeftSource&)> load;
  /// Errors: Unsupported, saying what PEFT cannot express.
  std::function<PeftPiece(const PeftView&)> save;
  /// Joins `next` to `first` where one directory can hold both; by default when they agree in all
  /// settings and act at different modules.
  std::function<bool(PeftPiece& first, const PeftPiece& next)> join;
  /// Last changes, when it is known which modules stay.
  std::function<void(PeftPiece&)> finish;
  /// Fields that name modules: `names` are those of the updates.
  std::function<void(const PeftPiece&, const std::vector<std::string>& names, Json& config)>
      describe;

  bool takes_site(const Site& site) const;
  bool join_pieces(PeftPiece& first, const PeftPiece& next) const;
};

/// Every type that is read and written, in alphabetical order.
std::vector<PeftType> peft_types();
/// The type that holds a method of ours, or null.
const PeftType* type_of_method(const std::vector<PeftType>& types, const std::string& method);

/// Fails with Unsupported: exporting METHOD to PEFT's TYPE: why.
[[noreturn]] void cannot_export(const PeftView& view, const std::string& type,
                                const std::string& why);
/// A whole number as an integer, so that it is written without a point.
Json plain_number(double value);

}  // namespace attune
