// Lottery-ticket sparse fine-tuning (LT-SFT): train everything, keep the parameters that moved
// most, go back to the start, train those alone.
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "policies/base_tensors.h"
#include "policies/registry.h"
#include "tensor/autograd.h"
#include "tensor/choose.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class LotteryTicket final : public TrainingPolicy {
 public:
  explicit LotteryTicket(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        density_(options.get<double>("density")),
        count_(options.get<int64_t>("count")),
        share_(options.get<double>("share")),
        full_l1_(options.get<double>("full_l1")),
        sparse_l1_(options.get<double>("sparse_l1")) {}

  void begin(TrainState& state) override {
    check_globs(state, sites_);
    std::vector<bool> base(state.params.size(), false);
    for (TrainedBase& tensor : trained_base(state)) {
      base[tensor.param] = true;
      tensor.base = start_of(state, tensor);
      const bool maskable = !tensor.new_head && matches_any(tensor.site, sites_);
      if (maskable && state.params[tensor.param].mask.defined())
        fail(ErrorCode::BadInput,
             "lottery_ticket: {} has a mask of its method's own; the ticket is drawn from tensors "
             "that train whole, so use a method such as full",
             state.params[tensor.param].name);
      if (!maskable)
        others_.push_back({tensor.param, tensor.base});
      else
        elements_ += state.params[tensor.param].value.numel();
      if (maskable) tensors_.push_back(std::move(tensor));
    }
    if (tensors_.empty())
      fail(ErrorCode::BadInput,
           "lottery_ticket: no tensor of the base model trains among the chosen sites; add a "
           "method that trains them, such as full");
    for (size_t i = 0; i < base.size(); ++i)
      if (!base[i]) others_.push_back({i, state.params[i].value.detach().clone()});
    for (const TrainedBase& tensor : tensors_) shapes_.push_back(tensor.base.sizes().vec());
    check_count();
  }

  void begin_part(TrainState& state) override {
    if (second_ || state.pass.progress < share_) return;
    choose(state);
    rewind(state);
    second_ = true;
    step_ = state.pass.step;
    state.restart = true;
  }
  bool settled() const override { return second_; }

  void before_step(TrainState& state) override {
    state.part_begin = second_ ? share_ : 0;
    state.part_end = second_ ? 1 : share_;
    state.part_step = second_ ? step_ : 0;
    for (size_t i = 0; second_ && i < tensors_.size(); ++i)
      state.params[tensors_[i].param].mask = masks_[i];
  }

  /// loss + lambda / P * sum |theta - theta0|, with P the number of the model's parameters.
  Loss around(TrainState& state, const Batch& batch, const LossFn& next) override {
    Loss loss = next(batch);
    const double strength = second_ ? sparse_l1_ : full_l1_;
    if (strength == 0) return loss;
    Tensor sum = at::zeros({}, at::kDouble);
    for (const TrainedBase& tensor : tensors_)
      sum = sum + (state.params[tensor.param].value - tensor.base).abs().sum().to(at::kDouble);
    const double each = strength / static_cast<double>(parameters(state.model));
    loss.total.sum = loss.total.sum + sum * (each * loss.total.count);
    return loss;
  }

  std::string save_state() const override {
    return Json{{"second", second_}, {"step", step_}, {"count", count_}, {"share", share_}}.dump();
  }
  void load_state(std::string_view text) override {
    const Json json = Json::parse(text);
    if (json.at("count") != count_ || json.at("share") != share_)
      fail(ErrorCode::BadInput,
           "lottery_ticket: the checkpoint's run keeps {} parameters after {} of the run, but this "
           "recipe says {} after {}; resume with the recipe of the run",
           json.at("count").dump(), json.at("share").dump(), count_, share_);
    second_ = json.at("second").get<bool>();
    step_ = json.at("step").get<int64_t>();
    masks_.clear();
    for (size_t i = 0; second_ && i < shapes_.size(); ++i)
      masks_.push_back(at::zeros(shapes_[i], at::kByte));
  }
  /// The masks of the second phase.
  std::vector<std::pair<std::string, Tensor>> tensors() override {
    std::vector<std::pair<std::string, Tensor>> result;
    for (size_t i = 0; i < masks_.size(); ++i)
      result.emplace_back("mask/" + std::to_string(i), masks_[i]);
    return result;
  }

 private:
  /// A tensor that trains whole in both phases.
  struct Other {
    size_t param;
    Tensor start;
  };

  void check_count() {
    if (count_ > elements_)
      fail(ErrorCode::BadInput,
           "lottery_ticket: count {} is more than the {} parameters to choose from", count_,
           elements_);
    if (count_ == 0)
      count_ = static_cast<int64_t>(std::floor(density_ * static_cast<double>(elements_)));
    if (count_ == 0)
      fail(ErrorCode::BadInput,
           "lottery_ticket: density {} of {} parameters leaves none to train; give a larger one",
           density_, elements_);
  }

  /// The count with the largest |theta1 - theta0|, over all tensors together.
  /// Differs: exactly as many; the authors' code takes every one that ties with the last.
  void choose(const TrainState& state) {
    std::vector<Tensor> moved;
    for (const TrainedBase& tensor : tensors_)
      moved.push_back((state.params[tensor.param].value.detach() - tensor.base).abs());
    masks_ = largest_elements(moved, count_);
  }

  void rewind(const TrainState& state) {
    at::NoGradGuard no_grad;
    const auto back = [&](size_t param, const Tensor& start) {
      state.params[param].value.detach().copy_(start);
      mark_changed(state.params[param].value);
    };
    for (const TrainedBase& tensor : tensors_) back(tensor.param, tensor.base);
    for (const Other& other : others_) back(other.param, other.start);
  }

  static int64_t parameters(Model& model) {
    int64_t count = 0;
    for (size_t i = 0; i < model.slots(); ++i) {
      const WeightSlot& slot = model.slot_at(i);
      count += slot.numel();
    }
    return count;
  }

  std::vector<std::string> sites_;
  double density_;
  int64_t count_;
  double share_, full_l1_, sparse_l1_;
  int64_t elements_ = 0, step_ = 0;
  bool second_ = false;  // the second phase has begun
  std::vector<TrainedBase> tensors_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<Other> others_;
  std::vector<Tensor> masks_;
};

}  // namespace

void register_lottery_ticket(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "lottery_ticket";
  entry.summary =
      "lottery-ticket sparse fine-tuning: train all, keep the parameters that moved most, rewind, "
      "train those alone";
  entry.reference =
      "Ansell et al. 2022, \"Composable Sparse Fine-Tuning for Cross-Lingual Transfer\", arXiv "
      "2110.07560 (LT-SFT, one iteration)";
  entry.options = {
      {"density", "number", "0.01", "(0, 1]", "share of the parameters that the ticket keeps"},
      {"count", "int", "0", "[0, inf)", "their number, instead; 0: use density"},
      {"share", "number", "0.5", "(0, 1)",
       "share of the run that trains everything; each phase has the whole learning-rate schedule"},
      {"sites", "globs", "\"*\"", "",
       "sites the ticket is drawn from (globs over site names); what else trains does so whole in "
       "both phases, a new head too"},
      {"full_l1", "number", "0", "[0, inf)",
       "pull to the values that the run began from in the first phase (0.1 for languages in the "
       "paper)"},
      {"sparse_l1", "number", "0", "[0, inf)", "the same in the second phase"},
  };
  entry.tiny = "{density: 0.2}";
  entry.examples = {"{}", "{density: 0.08, full_l1: 0.1, sparse_l1: 0.1}", "{count: 500000}"};
  entry.make = [](const Options& options) { return std::make_unique<LotteryTicket>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
