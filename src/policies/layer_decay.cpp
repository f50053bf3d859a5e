// Layer-wise learning-rate decay: the head trains at the full rate, the top block at a factor of
// it, and so on downwards.
#include <cmath>

#include "policies/registry.h"

namespace attune {
namespace {

class LayerDecay final : public TrainingPolicy {
 public:
  explicit LayerDecay(const Options& options) : factor_(options.get<double>("factor")) {}

  /// Rate of block l of L, counted from 0: factor^(L - l); embeddings: factor^(L + 1); heads: 1.
  void begin(TrainState& state) override {
    int top = -1;
    for (const Site& site : state.model.sites()) top = std::max(top, site.layer);
    for (Param& param : state.params) {
      const bool embedding = param.name.find(".embed.") != std::string::npos;
      if (param.layer < 0 && !embedding) continue;
      param.lr_scale *= std::pow(factor_, top + 1 - (embedding ? -1 : param.layer));
    }
  }

 private:
  double factor_;
};

}  // namespace

void register_layer_decay(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "layer_decay";
  entry.summary =
      "learning rate falls by a factor from the head to the top block, and from each block to the "
      "one below";
  entry.reference =
      "Howard and Ruder 2018, \"Universal Language Model Fine-tuning\", arXiv 1801.06146; Clark et "
      "al. 2020, "
      "\"ELECTRA\", arXiv 2003.10555";
  entry.options = {{"factor", "number", "0.95", "(0, 1]",
                    "rate of a block relative to the one above, of the top block to the head"}};
  entry.tiny = "{factor: 0.8}";
  entry.make = [](const Options& options) { return std::make_unique<LayerDecay>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
