#include "methods/thawed.h"

#include <set>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "core/attachment.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

namespace {

bool chosen(const Site& site, const ThawChoice& choice) {
  return site.kind == SiteKind::Weight && (choice.norms || site.weight != WeightKind::Norm) &&
         (!choice.also || choice.also(site));
}

/// The copy that trains in place of a base tensor.
Tensor trained_copy(const Attachment& attachment, const std::string& name) {
  // thaw() hands nothing back, so the engine's record is looked up.
  const Recorder* recorder = dynamic_cast<const Recorder*>(&attachment);
  if (recorder == nullptr) return Tensor();
  for (const Owned& owned : recorder->owned())
    if (owned.name == name && owned.role == Owned::Role::Thawed) return owned.value;
  return Tensor();
}

/// Storage and part: tied sites hold one tensor, an expert's copy its own.
using Key = std::pair<int, bool>;
Key key_of(const Site& site, Part part) {
  return {site.copy_of >= 0 ? -1 - site.id : site.storage, part == Part::Bias};
}

}  // namespace

std::vector<BaseTensor> thaw_chosen(Attachment& attachment, const ThawChoice& choice, bool masked,
                                    const char* method) {
  std::vector<BaseTensor> result;
  std::set<Key> seen;
  const auto thaw = [&](const Site& site, Part part, const Tensor& base) {
    if (!base.defined()) return;
    if (!seen.insert(key_of(site, part)).second) {
      attachment.thaw(site, {}, part);  // chosen with the site it is tied to
      return;
    }
    const std::string name = part == Part::Weight ? "weight" : "bias";
    Learn learn;
    if (masked)
      learn.mask = attachment.state(site, name + "_mask", at::zeros(base.sizes(), at::kByte));
    attachment.thaw(site, learn, part);
    result.push_back(
        {site, part, base, trained_copy(attachment, site.name + "/" + name), learn.mask});
  };
  for (const std::string& glob : choice.globs) {
    for (const Site& site : attachment.sites(glob)) {
      if (!chosen(site, choice)) continue;
      if (starts_with(site.name, "head.") && attachment.fresh(site)) continue;
      if (choice.weights) thaw(site, Part::Weight, attachment.weight(site));
      if (choice.biases) thaw(site, Part::Bias, attachment.bias(site));
    }
  }
  if (result.empty())
    fail(ErrorCode::BadInput,
         "{}: the chosen sites hold no tensor of the checkpoint that it could train; give other "
         "`sites`, or allow their weights, biases and norms",
         method);
  return result;
}

int64_t count_chosen(const std::vector<Site>& sites, const ThawChoice& choice) {
  int64_t count = 0;
  std::set<Key> seen;
  for (const Site& site : sites) {
    if (!chosen(site, choice)) continue;
    const bool matrix = site.weight == WeightKind::Projection || site.weight == WeightKind::Table;
    if (choice.weights && seen.insert(key_of(site, Part::Weight)).second)
      count += matrix ? site.in * site.out : site.out;
    if (choice.biases && site.bias && seen.insert(key_of(site, Part::Bias)).second)
      count += site.out;
  }
  return count;
}

std::vector<Tensor> fisher_information(const Calibration& calibration,
                                       const std::vector<BaseTensor>& tensors, int64_t batches,
                                       const char* method) {
  std::vector<Tensor> sums;
  for (const BaseTensor& tensor : tensors) sums.push_back(at::zeros_like(tensor.base));
  double examples = 0;
  calibration.gradients(batches, [&](double count) {
    at::NoGradGuard no_grad;
    examples += count;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Tensor gradient = tensors[i].value.defined() ? gradient_of(tensors[i].value) : Tensor();
      if (gradient.defined()) sums[i].add_(gradient * gradient);
    }
  });
  if (!(examples > 0))
    fail(ErrorCode::BadInput,
         "{}: the Fisher information needs labelled training examples, but there is none among "
         "the first {} batch(es) of the data",
         method, batches);
  for (Tensor& sum : sums) sum.div_(examples);
  return sums;
}

void refill(const std::vector<BaseTensor>& tensors, const std::vector<Tensor>& masks) {
  ATTUNE_ASSERT(tensors.size() == masks.size());
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i].mask.copy_(masks[i]);
}

}  // namespace attune
