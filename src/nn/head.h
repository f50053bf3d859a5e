#pragma once
#include <memory>

#include "core/forward.h"

namespace attune {

/// The last projection over ready features [n, hidden] (sequences, or rows for token heads).
class ProjectionHead final : public Head {
 public:
  /// bias: a Vector site added to the projection (tied output), or -1.
  ProjectionHead(std::shared_ptr<Forward> pass, int projection, int bias, int logits,
                 Tensor features);
  Tensor logits(const Tensor& which) const override;
  Score cross_entropy(const Tensor& labels, const Tensor& weights, double smoothing) const override;

 private:
  std::shared_ptr<Forward> pass_;  // shared with nothing else once forward returned
  int projection_, bias_, logits_;
  Tensor features_;
};

}  // namespace attune
