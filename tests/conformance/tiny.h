#pragma once
// Tiny models, batches and comparisons that the property suites share.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "arch/load.h"
#include "core/adaptation.h"
#include "methods/registry.h"
#include "nn/transformer.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune::tiny {

using Values = std::map<std::string, Tensor>;

using Folder = TempFolder;

/// A standard normal tensor of a named stream.
Tensor noise(const std::string& name, const std::vector<int64_t>& shape, double deviation,
             at::ScalarType type = at::kDouble);

/// Gives every base tensor ordinary values: projections and tables 0.8 / sqrt(width), biases 0.1,
/// norms 1 + 0.1 n. The values are a function of the site's name alone, so two models of one
/// configuration agree in every precision.
void ordinary_weights(Model& model);
std::unique_ptr<Model> model_of(const std::string& architecture, const HeadRequest& head,
                                kernels::DType type = kernels::DType::F64,
                                const Json& changes = Json::object(), int recompute = 0);
/// The tiny configuration of the architecture.
Json config_of(const std::string& architecture);
std::vector<std::string> architecture_names();

/// Sequences of these lengths with random tokens (images have their own), for every stack; labels
/// of the model's head and example ids 100, 101, ...
Batch batch_of(const Model& model, const std::vector<int64_t>& lengths, uint64_t seed = 1);
/// Sequence `b` of a batch alone.
Batch single(const Model& model, const Batch& batch, int64_t b);
Batch training(Batch batch);

Tensor logits(Model& model, const Batch& batch);
/// Captured values of every Rows and Heads site, and "logits"; without gradients.
Values everything(Model& model, const Batch& batch);
/// Cross-entropy of the head over the batch's labels (or a fixed random projection of `head.in`
/// or `final` without a head), plus the penalty; a double scalar.
Tensor loss(Model& model, const Batch& batch, const Adaptation* adaptation = nullptr);

/// max |a - b| / max(1, max |b|).
double distance(const Tensor& a, const Tensor& b);
/// Every tensor bit for bit.
bool same(const Values& a, const Values& b);
bool same_bits(const Tensor& a, const Tensor& b);
/// Copies of the base tensors, by slot.
Values base_tensors(Model& model);
/// The trained tensors, copied.
Values copies(const Adaptation& adaptation, const std::string& set);

/// Moves every trained tensor by 0.1 n, so that nothing is zero by its start.
void disturb(const Adaptation& adaptation, double deviation = 0.1);
/// Steps of AdamW at `rate`; returns the loss before the first one and after the last.
std::pair<double, double> train(Model& model, Adaptation& adaptation, const Batch& batch, int steps,
                                double rate);

/// Compares every trained tensor's gradient at its largest element and `random` others with central
/// differences.
void check_gradients(Model& model, Adaptation& adaptation, const Batch& batch, int random);

/// An adaptation of one method made from a function: for edits that no method of the registry
/// declares.
class Edits {
 public:
  using Attach = std::function<void(Attachment&)>;
  Edits(Model& model, Attach attach);
  Adaptation& operator*() { return *adaptation_; }
  Adaptation* operator->() { return adaptation_.get(); }

 private:
  Registry<Tuner> registry_;
  std::unique_ptr<Adaptation> adaptation_;
};

}  // namespace attune::tiny
