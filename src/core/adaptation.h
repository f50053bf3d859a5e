#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "core/model.h"
#include "core/registry.h"
#include "core/tuner.h"

namespace attune {

class Recorder;

/// One trained tensor and how it learns.
struct Param {
  std::string name;  // "default/0.lora/enc.0.self.q/down"
  Tensor value;
  double lr_scale = 1, weight_decay = -1;
  Tensor mask;
  int layer = -1;
  bool decays =
      true;  // false for biases and norms: no weight decay unless weight_decay >= 0 says so
  bool head = false;    // a head the checkpoint lacks
  bool frozen = false;  // a policy holds it back for now: no gradient, no update
};

/// What an adaptation adds to the bare frozen model. Counts are exact; FLOPs and saved bytes come
/// from the plan and the shape of a batch: data verbs and trained tensors by their formulas,
/// functions by two multiply-adds a row and parameter they own at their site.
struct Cost {
  int64_t trainable = 0, head = 0, stored_bytes = 0, forward_flops = 0, backward_flops = 0,
          saved_bytes = 0;
};

/// What a tuner is made from; saved beside its tensors so that loading makes it again.
struct TunerSpec {
  std::string method;
  Json options = Json::object();
};

/// Named sets of ordered tuners on one model; the destructor detaches all of them.
class Adaptation {
 public:
  Adaptation(Model& model, const Registry<Tuner>& methods, uint64_t seed);
  ~Adaptation();
  Adaptation(const Adaptation&) = delete;
  Adaptation& operator=(const Adaptation&) = delete;

  /// Makes the method from its options, attaches it after those already in the set, and re-plans.
  /// Errors: BadInput (unknown method, options, no matching site, oversize rank); Unsupported (a
  /// verb not carried out).
  Tuner& add(const std::string& set, const TunerSpec& spec, const std::string& path = "methods");
  /// Removes one tuner (by position in the set) or, with -1, the whole set; what stays is
  /// bit-identical.
  void remove(std::string_view set, int position = -1);
  void enable(std::string_view set, bool on);
  const Model& model() const;
  int32_t index(std::string_view set) const;  // what Batch::sets holds
  std::vector<std::string> sets() const;
  std::vector<TunerSpec> specs(std::string_view set) const;
  /// Errors: BadInput when the set trains an output whose tensor is also that of a site that none
  /// of its methods trains (tied embeddings).
  void check_outputs(std::string_view set) const;
  /// Multiplies the strength of a set (`--adapter DIR:0.5`): how far its edits go, and how far
  /// trained tensors of the base have moved. Errors: Unsupported for edits without a strength.
  void scale(std::string_view set, double factor);

  /// Folds the edits that fold into the weights; the pre-image is kept. Errors: Unsupported, naming
  /// the others.
  void merge(std::string_view set);
  /// Restores the kept pre-image and enables the merged sets again; never divides or subtracts.
  void unmerge();

  std::vector<Param> trainable() const;
  Tensor penalty() const;  // sum of the tuners' penalties; undefined when none
  void check(const RunLimits& limits) const;
  void calibrate(const Calibration& calibration);
  void after_backward(const Pass& pass);
  void after_step(const Pass& pass);
  bool settled() const;  // every enabled tuner is (Tuner::settled)
  /// Tensors that exact resuming needs beside tensors(): what methods keep as state.
  std::vector<std::pair<std::string, Tensor>> states(std::string_view set) const;
  /// Every saved tensor of a set (parameters, buffers, thawed values), by name; values are live.
  std::vector<std::pair<std::string, Tensor>> tensors(std::string_view set) const;
  /// What each tuner of a set declared, in order (core/attachment.h); for exporters. Valid until
  /// the set changes.
  std::vector<const Recorder*> recorders(std::string_view set) const;
  /// attune.json's part: methods with options, in order.
  Json manifest(std::string_view set) const;
  /// Adds the tuners of a manifest and copies the tensors in. Errors: Corrupt on missing, extra or
  /// misshapen tensors.
  void restore(const std::string& set, const Json& manifest,
               const std::vector<std::pair<std::string, Tensor>>& tensors,
               const std::string& where);
  Cost cost() const;
  /// The same with FLOPs and bytes kept for the backward pass, for a batch of this shape.
  Cost cost(const Batch& shape) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace attune
