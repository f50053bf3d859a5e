// AdaLoRA: updates in the form of a singular value decomposition share a budget of singular values.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// When the budget falls: from the initial to the final number of singular values, as a cubic.
/// Time runs in steps from 1 to `total`, or in the share of the run that is done.
struct BudgetSchedule {
  double begin = 0, end = 1;  // the budget falls between them
  int64_t total = 0;          // steps; 0: time is a share
  int64_t interval = 1;       // steps between two choices

  explicit BudgetSchedule(const Options& options);
  /// Reference: equation 12.
  int64_t budget(double time, int64_t from, int64_t to) const {
    if (time <= begin) return from;
    if (time >= end) return to;
    const double left = 1 - (time - begin) / (end - begin);
    const double share = static_cast<double>(from - to) * left * left * left;
    return to + static_cast<int64_t>(std::floor(share + 1e-9));
  }
};

double in_time(const Options& options, const char* key, int64_t total) {
  const double value = options.get<double>(key);
  if (value < 1) return total > 0 ? value * static_cast<double>(total) : value;
  if (total <= 0)
    fail(ErrorCode::BadInput,
         "{}: {} counts steps, which needs total_steps; give total_steps, or a share of the run "
         "below 1",
         options.where(key), value);
  return value;
}

BudgetSchedule::BudgetSchedule(const Options& options)
    : interval(options.get<int64_t>("interval")) {
  const bool shares = options.get<std::string>("total_steps") == "auto";
  total = shares ? 0 : options.get<int64_t>("total_steps");
  const double whole = shares ? 1 : static_cast<double>(total);
  begin = in_time(options, "t_init", total);
  end = whole - in_time(options, "t_final", total);
  if (begin >= end)
    fail(
        ErrorCode::BadInput,
        "{}: t_init {} and t_final {} leave no time for the budget to fall within {}; lower one of "
        "them{}",
        options.where("t_init"), options.get<double>("t_init"), options.get<double>("t_final"),
        shares ? std::string("the run") : std::to_string(total) + " steps",
        shares ? "" : " or raise total_steps");
}

/// |w g| smoothed over steps, and how far it strays from that, for every entry of one tensor.
/// Reference: equations 8 to 11.
struct Importance {
  Tensor sensitivity, uncertainty;  // of the tensor's shape, kept in checkpoints

  Importance(Attachment& attachment, const Site& site, const std::string& name, const Tensor& value)
      : sensitivity(attachment.state(site, "sensitivity_" + name, at::zeros_like(value).detach())),
        uncertainty(attachment.state(site, "uncertainty_" + name, at::zeros_like(value).detach())) {
  }
  void update(const Tensor& value, double beta1, double beta2) const {
    if (!value.grad().defined()) return;
    const Tensor now = (value.detach() * value.grad()).abs();
    sensitivity.mul_(beta1).add_(now, 1 - beta1);
    uncertainty.mul_(beta2).add_((now - sensitivity).abs(), 1 - beta2);
  }
  Tensor score() const { return sensitivity * uncertainty; }
};

/// One site's update P diag(e) Q and what is known of its entries.
struct Triplets {
  Tensor p, e, q;  // [out, r], [r], [r, in]
  Tensor kept;     // [r], 1 for singular values that the last choice kept
  Importance of_p, of_e, of_q;
  Edit* edit;

  /// Equation 7: that of the value itself and the means over its two vectors; double [r].
  Tensor scores() const {
    return (of_e.score() + of_p.score().mean(0) + of_q.score().mean(1)).to(at::kDouble);
  }
  void apply_choice() const {
    at::NoGradGuard no_grad;
    e.detach().mul_(kept);
    mark_changed(e);
  }
};

class Adalora final : public Tuner {
 public:
  explicit Adalora(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        initial_(options.get<int64_t>("init_rank")),
        alpha_(options.get<double>("alpha")),
        dropout_(options.get<double>("dropout")),
        beta1_(options.get<double>("beta1")),
        beta2_(options.get<double>("beta2")),
        orthogonal_(options.get<double>("orthogonal")),
        schedule_(options) {
    if (rank_ > initial_)
      fail(ErrorCode::BadInput,
           "{}: rank {} is more than the {} singular values a site begins with; give a rank of at "
           "most init_rank",
           options.where("rank"), rank_, initial_);
  }

  void attach(Attachment& attachment) override {
    for (const Site& site : projections(attachment, sites_, "adalora")) {
      check_rank("adalora", initial_, site);
      attach_to(attachment, site);
    }
    reached_ = attachment.state(Site::shared(), "reached", at::zeros({1}, at::kDouble));
    decided_ = attachment.state(Site::shared(), "decided", at::zeros({1}, at::kDouble));
  }

  void prepare(const Pass&) override {
    for (const Triplets& site : triplets_)
      std::get<LowRank>(*site.edit).down = site.q * site.e.reshape({-1, 1});
  }

  /// Keeps P and Q near orthogonal, so that e acts as singular values.
  /// Differs: the norms are not squared and are averaged over all P and Q, as PEFT does; the paper
  /// (equation 4) squares and adds them, and its weight depends on the number of sites.
  Tensor penalty() const override {
    if (orthogonal_ == 0 || triplets_.empty()) return {};
    Tensor sum;
    for (const Triplets& site : triplets_) {
      const Tensor one = at::eye(initial_, site.p.options().requires_grad(false));
      const Tensor distance = (attune::matmul(site.p, site.p, true, false) - one).norm() +
                              (attune::matmul(site.q, site.q, false, true) - one).norm();
      sum = sum.defined() ? sum + distance : distance;
    }
    return sum * (orthogonal_ / (2.0 * static_cast<double>(triplets_.size())));
  }

  void after_backward(const Pass& pass) override {
    if (time(pass) >= schedule_.end) return;  // the choice is made or due: nothing reads it again
    at::NoGradGuard no_grad;
    for (const Triplets& site : triplets_) {
      site.of_p.update(site.p, beta1_, beta2_);
      site.of_e.update(site.e, beta1_, beta2_);
      site.of_q.update(site.q, beta1_, beta2_);
    }
  }

  bool settled() const override { return decided_.item<double>() > 0; }

  void check(const RunLimits& limits) const override {
    const int64_t chosen = static_cast<int64_t>(std::ceil(schedule_.end));
    if (schedule_.total == 0 || limits.steps == 0 || limits.steps >= chosen) return;
    fail(
        ErrorCode::BadInput,
        "adalora: total_steps {}: the final choice would be made at step {}, but the run has {} "
        "steps, so no choice would ever be made for good; give a total_steps of at most the run's, "
        "or leave it out: the schedule then spans the run",
        schedule_.total, chosen, limits.steps);
  }

  void after_step(const Pass& pass) override {
    const double now = time(pass);
    const int64_t count = static_cast<int64_t>(triplets_.size());
    reached_.fill_(now);
    if (decided_.item<double>() > 0) {  // the optimizer moved them: moments outlive the choice
      for (const Triplets& site : triplets_) site.apply_choice();
    } else if (now >= schedule_.end) {
      choose(rank_ * count);
      decided_.fill_(1);
    } else if (now > schedule_.begin && (pass.step + 1) % schedule_.interval == 0) {
      choose(schedule_.budget(now, initial_ * count, rank_ * count));
    }
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const Tensor p =
        attachment.parameter(site, "p", attachment.normal(site, "p", {site.out, initial_}, 0.02));
    const Tensor e = attachment.parameter(site, "e", attachment.zeros({initial_}));
    const Tensor q =
        attachment.parameter(site, "q", attachment.normal(site, "q", {initial_, site.in}, 0.02));
    LowRank edit;
    edit.down = q;
    edit.up = p;
    edit.scale = alpha_ / (static_cast<double>(initial_) + 1e-5);  // as PEFT divides
    edit.dropout = dropout_;
    Edit& added = attachment.add(site, edit);
    const Tensor kept = attachment.state(site, "kept", attachment.ones({initial_}));
    triplets_.push_back({p, e, q, kept, Importance(attachment, site, "p", p),
                         Importance(attachment, site, "e", e), Importance(attachment, site, "q", q),
                         &added});
  }

  /// The end of the current step: its number, or the share of the run then done. A pass carries the
  /// middle of its step's share, so the end is as far behind it as the last end is before it.
  double time(const Pass& pass) const {
    if (schedule_.total > 0) return static_cast<double>(pass.step + 1);
    const double end = std::max(pass.progress, 2 * pass.progress - reached_.item<double>());
    return end > 1 - 1e-9 ? 1 : end;
  }

  /// Keeps the `budget` best singular values of all sites; the others become zero, and may return.
  void choose(int64_t budget) const {
    std::vector<std::pair<double, int64_t>> order;
    for (const Triplets& site : triplets_) {
      const Tensor scores = site.scores().contiguous();
      const double* score = static_cast<const double*>(scores.data_ptr());
      for (int64_t k = 0; k < initial_; ++k)
        order.emplace_back(-score[k], static_cast<int64_t>(order.size()));
    }
    // Differs: exactly `budget` stay, the earlier of equals; PEFT's threshold removes all equals.
    std::sort(order.begin(), order.end());
    for (const Triplets& site : triplets_) site.kept.zero_();
    for (int64_t i = 0; i < budget; ++i) {
      const int64_t index = order[static_cast<size_t>(i)].second;
      triplets_[static_cast<size_t>(index / initial_)].kept.select(0, index % initial_).fill_(1);
    }
    for (const Triplets& site : triplets_) site.apply_choice();
  }

  std::vector<std::string> sites_;
  int64_t rank_, initial_;
  double alpha_, dropout_, beta1_, beta2_, orthogonal_;
  BudgetSchedule schedule_;
  std::vector<Triplets> triplets_;
  Tensor reached_, decided_;
};

std::vector<Option> adalora_options() {
  return {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "8", "[1, inf)", "singular values a site keeps in the end, on average"},
      {"init_rank", "int", "12", "[1, inf)", "singular values a site begins with"},
      {"alpha", "number", "16", "(0, inf)", "strength: the update is scaled by alpha / init_rank"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the update's input"},
      {"t_init", "number", "0.1", "[0, inf)",
       "how long all singular values stay: a share of the run, or steps when 1 or more"},
      {"t_final", "number", "0.3", "[0, inf)",
       "how long the final choice trains on: a share of the run, or steps when 1 or more"},
      {"total_steps", "int", "auto", "[1, inf)",
       "length of the schedule in steps; auto: that of the run"},
      {"interval", "int", "10", "[1, inf)", "steps between two choices while the budget falls"},
      {"beta1", "number", "0.85", "(0, 1)", "smoothing of the sensitivity |w g|"},
      {"beta2", "number", "0.85", "(0, 1)", "smoothing of the sensitivity's uncertainty"},
      {"orthogonal", "number", "0.5", "[0, inf)",
       "weight of the penalty that keeps singular vectors orthogonal"},
  };
}

}  // namespace

void register_adalora(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "adalora";
  entry.summary =
      "low-rank updates P diag(e) Q whose singular values compete for a budget that falls during "
      "the run";
  entry.reference =
      "Zhang et al. 2023, \"Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning\" "
      "(AdaLoRA), arXiv 2303.10512";
  entry.options = adalora_options();
  entry.learning_rate = 1e-2;
  entry.tiny = "{rank: 1, init_rank: 3, alpha: 4}";
  entry.examples = {"{}", "{rank: 4, init_rank: 8, sites: [\"*.self.[qkvo]\", \"*.ffn.*\"]}",
                    "{rank: 8, init_rank: 12, total_steps: 3000, t_init: 200, t_final: 500}"};
  entry.make = [](const Options& options) { return std::make_unique<Adalora>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites)
      count += options.get<int64_t>("init_rank") * (site.in + site.out + 1);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
