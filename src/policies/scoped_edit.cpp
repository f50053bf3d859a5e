#include "policies/scoped_edit.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "tensor/torch.h"

namespace attune {

ScopedEdit::ScopedEdit(Model& model, const Site& site, Edit edit, const std::string& owner)
    : model_(model), site_(site.id), edit_(std::move(edit)) {
  if (!admits(site, edit_))
    fail(ErrorCode::BadInput,
         "{}: site {} ({}) does not admit {}; docs/sites.md lists which verbs each kind of site "
         "admits",
         owner, site.name, kind_name(site.kind), verb_name(edit_));
  const uint32_t dropout_site = static_cast<uint32_t>(name_key(owner + "/" + site.name));
  model_.plan().need(site_).edits.push_back({&edit_, owner, dropout_site, true});
}

ScopedEdit::~ScopedEdit() {
  SitePlan* plan = model_.plan().mutable_at(site_);
  if (plan == nullptr) return;
  std::erase_if(plan->edits, [this](const SitePlan::Entry& e) { return e.edit == &edit_; });
}

WatchedLoss watch_logits(Model& model, const Batch& batch, const LossFn& next,
                         const std::string& owner) {
  const Site* site = model.find("logits");
  WatchedLoss result;
  if (site != nullptr) {
    const auto see = [&](const View& view) {
      if (!result.logits.defined()) result.logits = view.x;
    };
    const ScopedEdit watch(model, *site, Observe{see, {}}, owner);
    result.loss = next(batch);
  }
  if (!result.logits.defined())
    fail(ErrorCode::Unsupported,
         "{}: compares what the head gives, but this model's head gives no logits in training",
         owner);
  return result;
}

namespace {

/// The rows of the logits that have a label.
Tensor labelled(const Tensor& logits, const Tensor& labels) {
  if (labels.numel() != logits.size(0)) return logits;  // only those were computed
  return logits.index_select(0, labels.reshape({-1}).ne(kUnlabelled).nonzero().reshape({-1}));
}

}  // namespace

Tensor divergence(const Tensor& a, const Tensor& b, const Batch& batch) {
  const std::map<std::string, Tensor>::const_iterator labels = batch.fields.find("labels");
  Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  if (labels != batch.fields.end()) {
    x = at::log_softmax(labelled(x, labels->second), -1);
    y = at::log_softmax(labelled(y, labels->second), -1);
    return ((x.exp() - y.exp()) * (x - y)).sum() / std::max<int64_t>(1, x.size(0));
  }
  // The log odds of a sigmoid are its logit, so the two divergences sum to (p - q)(x - y).
  if (x.dim() > 1 && x.size(1) > 1) return ((x.sigmoid() - y.sigmoid()) * (x - y)).mean();
  return (x - y).square().mean();
}

}  // namespace attune
