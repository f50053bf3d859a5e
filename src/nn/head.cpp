#include "nn/head.h"

#include "kernels/ops/rowwise.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

ProjectionHead::ProjectionHead(std::shared_ptr<Forward> pass, int projection, int bias, int logits,
                               Tensor features)
    : pass_(std::move(pass)),
      projection_(projection),
      bias_(bias),
      logits_(logits),
      features_(std::move(features)) {}

Tensor ProjectionHead::logits(const Tensor& which) const {
  const Tensor features =
      which.defined() ? features_.index_select(0, which.to(at::kLong)) : features_;
  Tensor y = cast(pass_->project(projection_, features), pass_->master());
  if (bias_ >= 0) y = y + pass_->table(bias_);
  return pass_->at(logits_, y);
}

Score ProjectionHead::cross_entropy(const Tensor& labels, const Tensor& weights,
                                    double smoothing) const {
  const CrossEntropy loss = attune::cross_entropy(logits(Tensor()), labels, weights, smoothing);
  return {loss.sum, loss.count};
}

}  // namespace attune
