// R-Drop: two passes with different dropout must agree.
#include "base/random.h"
#include "policies/registry.h"
#include "policies/scoped_edit.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class RDrop final : public TrainingPolicy {
 public:
  explicit RDrop(const Options& options) : alpha_(options.get<double>("alpha")) {}

  /// Equations 2 to 4, halved so that the loss stays comparable with that of one pass:
  /// (nll1 + nll2 + alpha / 2 * (KL(p1 || p2) + KL(p2 || p1))) / 2.
  Loss around(TrainState& state, const Batch& batch, const LossFn& next) override {
    if (alpha_ == 0) return next(batch);
    Batch again = batch;
    again.pass.seed = Stream64(batch.pass.seed, "r_drop").key();  // keys every draw of the pass
    const WatchedLoss first = watch_logits(state.model, batch, next, "r_drop");
    const WatchedLoss second = watch_logits(state.model, again, next, "r_drop");
    const Tensor apart = divergence(first.logits, second.logits, batch);
    Loss loss = first.loss;
    const double count = loss.total.count;
    loss.total.sum =
        (first.loss.total.sum + second.loss.total.sum + apart * (alpha_ / 2 * count)) / 2;
    loss.parts["r_drop"] = {apart.detach() * count, count};
    return loss;
  }

 private:
  double alpha_;
};

}  // namespace

void register_r_drop(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "r_drop";
  entry.summary =
      "two passes with different dropout; the divergence of what they predict joins the loss "
      "(twice the time of a step)";
  entry.reference =
      "Wu et al. 2021, \"R-Drop: Regularized Dropout for Neural Networks\", arXiv 2106.14448";
  entry.options = {{"alpha", "number", "1", "[0, inf)",
                    "weight of the divergence; the paper takes 1 to 5, 0 turns the policy off"}};
  entry.tiny = "{alpha: 1}";
  entry.examples = {"{}", "{alpha: 5}"};
  entry.make = [](const Options& options) { return std::make_unique<RDrop>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
