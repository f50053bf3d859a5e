#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/random.h"
#include "core/edit.h"
#include "core/site.h"

namespace attune {

/// Where a run stands, as methods and policies see it.
struct Pass {
  bool training = false;
  int64_t step = 0;
  double progress = 0;  // examples consumed / examples in all, in [0, 1]
  int64_t task = 0;
  uint64_t seed = 0;
};

/// How a trained tensor learns: rate relative to the optimizer's, weight decay (-1: the optimizer's
/// own rule), and which elements train (bool or uint8 of the tensor's shape, or one that broadcasts
/// to it: rows [out, 1], the whole [1]; undefined: all). The engine reads the mask every step, so a
/// method may refill it; what it holds back gets no update, no decay, no moments, no share in
/// clipping. alone: thaw() gives the site a copy of its own where others share the tensor (tied
/// embeddings), which keep theirs.
struct Learn {
  double lr_scale = 1, weight_decay = -1;
  Tensor mask;
  bool alone = false;
};
/// Which tensors of a Weight site thaw() trains.
enum class Part : uint8_t { All, Weight, Bias };

/// What a tuner is given; the engine names, owns, saves and counts the results.
class Attachment {
 public:
  virtual ~Attachment() = default;
  /// Errors: BadInput when nothing matches (shows near names).
  virtual std::vector<Site> sites(std::string_view glob) const = 0;
  /// Every site of the model.
  virtual const std::vector<Site>& all_sites() const = 0;
  /// Base value, read only; bias undefined when the site has none.
  virtual Tensor weight(const Site& site) const = 0;
  virtual Tensor bias(const Site& site) const = 0;
  /// True when the site's tensors were not in the checkpoint (a new head).
  virtual bool fresh(const Site& site) const = 0;
  /// A trained tensor; `init` is copied in the master type.
  virtual Tensor parameter(const Site& site, std::string_view name, const Tensor& init,
                           Learn learn = {}) = 0;
  /// Saved, not trained.
  virtual Tensor buffer(const Site& site, std::string_view name, const Tensor& init) = 0;
  /// Kept in checkpoints so that resuming is exact, but no part of the saved adapter.
  virtual Tensor state(const Site& site, std::string_view name, const Tensor& init) = 0;
  /// Stable address: prepare() may refresh the edit's tensors.
  virtual Edit& add(const Site& site, Edit edit) = 0;
  /// Route at a Part: the sites of each copy ("enc.0.ffn.e3.up"), which further edits may address.
  /// What is already attached to the part acts in every copy.
  virtual std::vector<std::vector<Site>> route(const Site& part, Route edit) = 0;
  /// Trains the base tensor: a copy takes its place, the base itself never changes.
  virtual void thaw(const Site& site, Learn learn = {}, Part part = Part::All) = 0;
  /// Initial values: standard normal and uniform [-1, 1), keyed by (seed, method, site, name).
  virtual Tensor normal(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                        double deviation) const = 0;
  virtual Tensor uniform(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                         double bound) const = 0;
  /// Token ids of a text without special tokens. Errors: Unsupported when the model came without a
  /// tokenizer.
  virtual std::vector<int32_t> encode(const std::string& text) const = 0;
  /// The model's config.json.
  virtual const Json& config() const = 0;
  /// Key of a random stream of this method's own.
  virtual uint64_t stream(std::string_view name) const = 0;
  virtual Tensor zeros(const std::vector<int64_t>& shape) const = 0;
  virtual Tensor ones(const std::vector<int64_t>& shape) const = 0;
};

/// Gradients over data before training begins: runs forward and backward over up to `batches`
/// training batches without changing any value; `each` is called after every one, with fresh
/// gradients of the batch's summed loss and the number of its labelled examples.
struct Calibration {
  std::function<void(int64_t batches, const std::function<void(double count)>& each)> gradients;
  uint64_t seed = 0;
};

/// What is known of a run before it begins; 0: not known.
struct RunLimits {
  int64_t steps = 0;  // in all
  int64_t rows = 0;   // the most an example may have (data.max_length)
};

/// A method: parameters plus edits, and nothing else.
class Tuner {
 public:
  virtual ~Tuner() = default;
  virtual void attach(Attachment& attachment) = 0;  // once; must not touch the model
  virtual void prepare(const Pass&) {}  // before each forward: hypernetworks, gates, annealing
  virtual Tensor penalty() const { return {}; }  // after a forward; joins the loss when defined
  /// Before a run begins, or is only looked at. Errors: for what the method could not do in it.
  virtual void check(const RunLimits&) const {}
  /// Once, before the first step of a run (not when it resumes): choices made from data.
  virtual void calibrate(const Calibration&) {}
  virtual void after_backward(const Pass&) {}  // gradients of the window's sum exist
  virtual void after_step(const Pass&) {}      // values changed
  /// False while the present state is no result yet: the method is still on its way to the tensors
  /// it promises. Evaluations then decide nothing (train.best, train.patience).
  virtual bool settled() const { return true; }
};

}  // namespace attune
