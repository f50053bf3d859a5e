// Mean squared error of one number a sequence.
#include "objectives/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class MeanSquaredError final : public Objective {
 public:
  std::string reads() const override { return "targets"; }
  Loss compute(Model& model, const Batch& batch) override {
    const Output output = model.forward(batch, wants());
    const Tensor logits = output.head->logits(Tensor());
    const Tensor difference = logits.to(at::kDouble) - batch.fields.at("targets").to(at::kDouble);
    return {{(difference * difference).sum(), static_cast<double>(difference.numel())}, {}};
  }
};

}  // namespace

void register_mse(Registry<Objective>& registry) {
  Entry<Objective> entry;
  entry.name = "mse";
  entry.summary = "mean squared error of predicted numbers";
  entry.reference = "least squares";
  entry.tiny = "{}";
  entry.make = [](const Options&) { return std::make_unique<MeanSquaredError>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
