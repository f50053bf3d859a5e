// Mixout: at every step some weights stand back for their pre-trained values.
#include "base/error.h"
#include "base/random.h"
#include "policies/base_tensors.h"
#include "policies/registry.h"
#include "tensor/autograd.h"
#include "tensor/choose.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Mixout final : public TrainingPolicy {
 public:
  explicit Mixout(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        p_(options.get<double>("p")),
        by_input_(options.get<std::string>("granularity") == "input") {}

  void begin(TrainState& state) override {
    check_globs(state, sites_);
    for (TrainedBase& tensor : trained_base(state))
      if (tensor.weight && !tensor.new_head && tensor.site.weight == WeightKind::Projection &&
          matches_any(tensor.site, sites_))
        tensors_.push_back(std::move(tensor));
    if (tensors_.empty())
      fail(
          ErrorCode::BadInput,
          "mixout: no projection of the base model trains among the chosen sites, so there is none "
          "to mix with its pre-trained values; add a method that trains them, such as full");
  }

  /// W' = (M W0 + (1 - M) W - p W0) / (1 - p) = W0 + (1 - M) / (1 - p) (W - W0), M ~ Bernoulli(p).
  /// The weights themselves are exchanged until the gradient is there: the same function and
  /// gradient as W' in the graph.
  /// Differs: one draw a step, not one a micro-batch; the checkpoint's own dropout stays on.
  void before_step(TrainState& state) override {
    if (p_ == 0) return;
    at::NoGradGuard no_grad;
    kept_.clear();
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const Tensor value = state.params[tensors_[i].param].value.detach();
      kept_.push_back(value.clone());
      value.copy_(tensors_[i].base + mixed(state, i, value - tensors_[i].base));
      mark_changed(state.params[tensors_[i].param].value);
    }
  }

  /// dL/dW = dL/dW' (1 - M) / (1 - p).
  void after_backward(TrainState& state) override {
    if (p_ == 0) return;
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      Tensor value = state.params[tensors_[i].param].value;
      value.detach().copy_(kept_[i]);
      mark_changed(value);
      if (value.grad().defined()) value.mutable_grad() = mixed(state, i, gradient_of(value));
    }
    kept_.clear();
  }

 private:
  /// x (1 - M) / (1 - p) with this step's M of a tensor.
  Tensor mixed(const TrainState& state, size_t tensor, const Tensor& x) const {
    const uint64_t key = Stream64(state.pass.seed, "mixout")
                             .with(static_cast<uint64_t>(state.pass.step))
                             .with(tensor)
                             .key();
    if (!by_input_) return keep_at_random(x, 1 - p_, key);
    return x * keep_at_random(at::ones({1, x.size(1)}, x.options()), 1 - p_, key);
  }

  std::vector<std::string> sites_;
  double p_;
  bool by_input_;
  std::vector<TrainedBase> tensors_;
  std::vector<Tensor> kept_;  // the weights, while others stand in for them
};

}  // namespace

void register_mixout(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "mixout";
  entry.summary =
      "at every step a random share of the trained projections' weights stands back for the "
      "pre-trained ones";
  entry.reference =
      "Lee et al. 2020, \"Mixout: Effective Regularization to Finetune Large-scale Pretrained "
      "Language Models\", arXiv 1909.11299; granularity input: the code of Zhang et al. 2021, "
      "\"Revisiting Few-sample BERT Fine-tuning\", arXiv 2006.05987";
  entry.options = {
      {"p", "number", "0.7", "[0, 1)", "probability that a weight is the pre-trained one"},
      {"granularity", "choice", "element", "element|input",
       "draw for every weight, or for whole input features"},
      {"sites", "globs", "\"*\"", "", "projections that are mixed (globs over site names)"},
  };
  entry.tiny = "{p: 0.5}";
  entry.examples = {"{}", "{p: 0.1, granularity: input}"};
  entry.make = [](const Options& options) { return std::make_unique<Mixout>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
