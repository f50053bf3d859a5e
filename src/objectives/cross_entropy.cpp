// Softmax cross-entropy over labelled sequences or rows, with label smoothing and class weights.
#include "objectives/registry.h"

namespace attune {
namespace {

class SoftmaxCrossEntropy final : public Objective {
 public:
  explicit SoftmaxCrossEntropy(const Options& options)
      : smoothing_(options.get<double>("smoothing")) {}
  Loss compute(Model& model, const Batch& batch) override {
    Want want = wants();
    want.labels = batch.fields.at("labels");
    const Output output = model.forward(batch, want);
    const std::map<std::string, Tensor>::const_iterator weights =
        batch.fields.find("class_weights");
    return {
        output.head->cross_entropy(
            want.labels, weights != batch.fields.end() ? weights->second : Tensor(), smoothing_),
        {}};
  }

 private:
  double smoothing_;
};

}  // namespace

void register_cross_entropy(Registry<Objective>& registry) {
  Entry<Objective> entry;
  entry.name = "cross_entropy";
  entry.summary = "softmax cross-entropy; sums over labelled rows, -100 skipped";
  entry.reference =
      "label smoothing: Szegedy et al. 2016, \"Rethinking the Inception Architecture\", arXiv "
      "1512.00567";
  entry.options = {
      {"smoothing", "number", "0", "[0, 1)", "share of the target spread evenly over the classes"}};
  entry.tiny = "{}";
  entry.make = [](const Options& options) {
    return std::make_unique<SoftmaxCrossEntropy>(options);
  };
  registry.add(std::move(entry));
}

}  // namespace attune
