// Child-Tuning: gradients of a part of the network, random at every step or fixed from the data.
#include <cmath>

#include "base/random.h"
#include "core/attachment.h"
#include "methods/registry.h"
#include "methods/thawed.h"
#include "tensor/autograd.h"
#include "tensor/choose.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class ChildTuning final : public Tuner {
 public:
  explicit ChildTuning(const Options& options)
      : choice_{options.get<std::vector<std::string>>("sites")},
        fixed_(options.get<std::string>("mode") == "D"),
        share_(options.get<double>("share")),
        batches_(options.get<int64_t>("batches")) {}

  void attach(Attachment& attachment) override {
    tensors_ = thaw_chosen(attachment, choice_, fixed_, "child_tuning");
    key_ = attachment.stream("mask");
    if (!fixed_) return;
    std::vector<Tensor> sizes;  // until the data were seen
    for (const BaseTensor& tensor : tensors_) sizes.push_back(tensor.base.abs());
    choose(sizes);
  }

  /// D: the child network is the share of parameters with the largest Fisher information.
  void calibrate(const Calibration& calibration) override {
    if (fixed_) choose(fisher_information(calibration, tensors_, batches_, "child_tuning"));
  }

  /// F: g <- g * M / p with M ~ Bernoulli(p), drawn anew at every step (equation 4).
  /// Differs: before the gradient is clipped; the code masks what is already clipped.
  void after_backward(const Pass& pass) override {
    if (fixed_ || share_ == 1) return;
    at::NoGradGuard no_grad;
    const Stream64 step = Stream64(key_).with(static_cast<uint64_t>(pass.step));
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!tensors_[i].value.defined() || !tensors_[i].value.grad().defined()) continue;
      tensors_[i].value.mutable_grad() =
          keep_at_random(gradient_of(tensors_[i].value), share_, step.with(i).key());
    }
  }

 private:
  void choose(const std::vector<Tensor>& scores) {
    int64_t elements = 0;
    for (const Tensor& score : scores) elements += score.numel();
    refill(tensors_,
           largest_elements(
               scores, std::max<int64_t>(1, std::llround(share_ * static_cast<double>(elements)))));
  }

  ThawChoice choice_;
  bool fixed_;
  double share_;
  int64_t batches_;
  uint64_t key_ = 0;
  std::vector<BaseTensor> tensors_;
};

}  // namespace

void register_child_tuning(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "child_tuning";
  entry.summary =
      "Child-Tuning: only a part of all parameters gets gradients, the most important ones for "
      "the task (D) or others at every step (F)";
  entry.reference =
      "Xu et al. 2021, \"Raise a Child in Large Language Model: Towards Effective and "
      "Generalizable Fine-tuning\", arXiv 2109.05687";
  entry.options = {
      {"sites", "globs", "\"*\"", "", "sites whose tensors train (globs over site names)"},
      {"mode", "choice", "D", "D|F",
       "D: the share with the largest Fisher information on the training data, fixed; F: a random "
       "share at every step, gradients divided by the share"},
      {"share", "number", "0.3", "(0, 1]", "share of the parameters that gets gradients"},
      {"batches", "int", "128", "[1, inf)",
       "D: training batches the Fisher information is computed from, at most one pass over the "
       "data"},
  };
  entry.learning_rate = 1e-4;
  entry.tiny = "{mode: F, share: 0.5}";
  entry.examples = {"{}", "{mode: F, share: 0.2}"};
  entry.make = [](const Options& options) { return std::make_unique<ChildTuning>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const int64_t all = count_chosen(sites, ThawChoice{{}});
    if (options.get<std::string>("mode") == "F") return all;
    return std::max<int64_t>(1,
                             std::llround(options.get<double>("share") * static_cast<double>(all)));
  };
  registry.add(std::move(entry));
}

}  // namespace attune
