// Sigmoid cross-entropy of several labels a sequence.
#include "objectives/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class BinaryCrossEntropy final : public Objective {
 public:
  std::string reads() const override { return "targets"; }
  Loss compute(Model& model, const Batch& batch) override {
    const Output output = model.forward(batch, wants());
    const Tensor z = output.head->logits(Tensor()).to(at::kDouble);
    const Tensor target = batch.fields.at("targets").to(at::kDouble);
    // max(z, 0) - z t + log(1 + exp(-|z|)): no overflow for either sign.
    const Tensor loss = z.clamp_min(0) - z * target + (-z.abs()).exp().log1p();
    return {{loss.sum(), static_cast<double>(loss.numel())}, {}};
  }
};

}  // namespace

void register_binary_cross_entropy(Registry<Objective>& registry) {
  Entry<Objective> entry;
  entry.name = "binary_cross_entropy";
  entry.summary = "sigmoid cross-entropy, mean over sequences and labels";
  entry.reference = "Bishop 2006, \"Pattern Recognition and Machine Learning\", equation 4.90";
  entry.tiny = "{}";
  entry.make = [](const Options&) { return std::make_unique<BinaryCrossEntropy>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
