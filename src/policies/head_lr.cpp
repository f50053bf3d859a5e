// A learning rate of its own for a new head.
#include "policies/registry.h"

namespace attune {
namespace {

class HeadLr final : public TrainingPolicy {
 public:
  explicit HeadLr(const Options& options) : scale_(options.get<double>("scale")) {}

  void begin(TrainState& state) override {
    for (Param& param : state.params)
      if (param.head) param.lr_scale *= scale_;
  }

 private:
  double scale_;
};

}  // namespace

void register_head_lr(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "head_lr";
  entry.summary =
      "a head that the checkpoint lacks learns at a multiple of the learning rate, for methods "
      "whose own rate is too small for a head drawn at random, or too large";
  entry.reference =
      "Kopiczko et al. 2024, \"VeRA: Vector-based Random Matrix Adaptation\", arXiv 2310.11454, "
      "section 4.1 (separate learning rates of the head and of the adapted layers)";
  entry.options = {{"scale", "number", "10", "(0, inf)", "rate of the head relative to train.lr"}};
  entry.tiny = "{scale: 4}";
  entry.make = [](const Options& options) { return std::make_unique<HeadLr>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
