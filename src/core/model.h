#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/batch.h"
#include "core/plan.h"
#include "core/site.h"
#include "kernels/ops/linear.h"

namespace attune {

/// The tensors behind one storage id, and their names in a checkpoint.
struct WeightSlot {
  // Never changed while edits are attached, except by merge. `weight` is undefined when the slot
  // holds codes. Both are of the master type, but where the model computes in bf16 projections and
  // large tables stay in the half precision of their file: dense() has them in the master type.
  Tensor weight, bias;
  std::shared_ptr<const kernels::QuantizedMatrix> codes;  // core/storage.h
  at::ScalarType master = at::kFloat;
  std::string weight_name, bias_name;
  std::vector<int64_t> stored;  // the weight's shape in files, where it is not the site's
  std::string module;  // path in transformers' class with a head: "bert.pooler.dense", whatever the
                       // file says
  bool fresh = false;  // not in the checkpoint: drawn from the seed
  WeightCopies copies;  // compute copies of `weight`
  /// The weight's values in the master type: `weight` itself, or converted or decoded anew.
  Tensor dense() const;
  /// The same, kept: for values that are asked for at every pass. Codes stay codes.
  Tensor widened();
  bool present() const { return weight.defined() || codes != nullptr; }
  int64_t numel() const;  // of weight and bias
  std::vector<int64_t> shape() const;
  /// A weight in the shape that files have.
  Tensor as_stored(const Tensor& values) const;
  /// Replaces the weight's values, codes or not; copies are made anew.
  void replace(Tensor weight_values, Tensor bias_values,
               std::shared_ptr<const kernels::QuantizedMatrix> new_codes = nullptr);
};

/// How the model computes.
struct Numerics {
  kernels::DType compute = kernels::DType::F32;
  /// The lowest blocks of each stack that keep only their input in training and are computed again
  /// in the backward pass; -1: all.
  int recompute = 0;
  at::ScalarType master() const;
  at::ScalarType scalar() const;
};

/// A loaded model: a flat list of sites, the tensors behind them, the plan of edits, and a forward
/// pass.
class Model {
 public:
  Model();
  virtual ~Model();
  const std::vector<Site>& sites() const { return sites_; }
  const Site& site(std::string_view name) const;  // Internal when absent
  const Site* find(std::string_view name) const;  // null when absent
  WeightSlot& slot(const Site& site);
  const WeightSlot& slot(const Site& site) const;
  size_t slots() const { return slots_.size(); }
  WeightSlot& slot_at(size_t storage) { return *slots_[storage]; }
  Plan& plan() { return plan_; }
  const Plan& plan() const { return plan_; }
  const Numerics& numerics() const { return numerics_; }
  const Json& config() const { return config_; }
  void set_config(Json config) { config_ = std::move(config); }

  /// Token ids of a text without special tokens, for methods that begin from words; may be empty.
  std::function<std::vector<int32_t>(const std::string&)> encode_text;

  /// Runs the batch. Errors: BadInput for inputs outside the model's tables, naming row and value.
  virtual Output forward(const Batch& batch, const Want& want) = 0;

  /// Route: `experts` copies of the sites inside a part, named "enc.0.ffn.e3.up"; their tensors are
  /// the part's own until they are trained. Copies once made are reused. Returns them by expert.
  std::vector<std::vector<int>> add_experts(const Site& part, int experts);
  /// Gives the output that shares this tensor one of its own, so that the two can differ; false
  /// where no checkpoint of this architecture could hold it. `retie` takes it back.
  virtual bool untie(int storage) {
    (void)storage;
    return false;
  }
  virtual void retie() {}
  /// The storage of a site's tensor, of one that was untied the one it shared.
  virtual int tied_storage(const Site& site) const { return site.storage; }
  /// Has the projection a bias, or can a checkpoint of this architecture give it one?
  virtual bool can_have_bias(const Site& site) const { return site.bias; }
  /// Hides an expert's copy from patterns, or shows it.
  void hide(int site, bool hidden) { sites_[static_cast<size_t>(site)].hidden = hidden; }

 protected:
  /// Adds a site and returns its id. A Weight site without `tied_to` gets a slot of its own.
  int add_site(Site site, int tied_to = -1);
  std::vector<Site> sites_;
  std::vector<std::unique_ptr<WeightSlot>> slots_;  // by storage id
  Plan plan_;
  Numerics numerics_;
  Json config_;
};

}  // namespace attune
