#pragma once
#include <string>
#include <vector>

#include "core/model.h"
#include "core/policy.h"

namespace attune {

/// An edit of a policy's own, after those of the methods, in the forward passes that run while this
/// lives. It owns no trained tensor and is never saved.
/// Errors: BadInput, naming `owner`, when the site does not admit the verb.
class ScopedEdit {
 public:
  ScopedEdit(Model& model, const Site& site, Edit edit, const std::string& owner);
  ~ScopedEdit();
  ScopedEdit(const ScopedEdit&) = delete;
  ScopedEdit& operator=(const ScopedEdit&) = delete;

 private:
  Model& model_;
  int site_;
  Edit edit_;
};

/// What a model's head gives during one call of the rest of a policy's chain.
struct WatchedLoss {
  Loss loss;
  Tensor logits;  // [rows, classes], part of the graph
};
/// Runs `next` and keeps the logits of its first pass (a policy inside may run several). Errors:
/// Unsupported, naming `owner`, when the model gives none.
WatchedLoss watch_logits(Model& model, const Batch& batch, const LossFn& next,
                         const std::string& owner);

/// How far two outputs of the head for one batch are apart: a mean over its labelled rows, a double
/// scalar whose gradient reaches both. By the batch's fields: for classes ("labels")
/// KL(p || q) + KL(q || p) of the softmax; for several labels a row ("targets" of more than one
/// column) the same of each label's sigmoid; for a number (one column) the squared difference.
/// Reference: Jiang et al. 2020, arXiv 1911.03437, equation 2 and below (classification and
/// regression).
Tensor divergence(const Tensor& a, const Tensor& b, const Batch& batch);

}  // namespace attune
