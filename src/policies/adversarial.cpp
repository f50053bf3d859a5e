// Adversarial training on embeddings: a small perturbation that raises the loss (FGM, PGD) or
// changes what the model predicts (SMART) joins every step.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "policies/base_tensors.h"
#include "policies/registry.h"
#include "policies/scoped_edit.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// The rows at one site in one pass, and what is added to them.
struct Perturbed {
  Site site;
  RowIndex rows;
  Tensor delta;  // [rows, d]
};

enum class Mode : uint8_t { Fgm, Pgd, Smart };

class Adversarial final : public TrainingPolicy {
 public:
  explicit Adversarial(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        weight_(options.get<double>("weight")) {
    const std::string mode = options.get<std::string>("mode");
    mode_ = mode == "fgm" ? Mode::Fgm : mode == "pgd" ? Mode::Pgd : Mode::Smart;
    const auto number = [&](const char* key, double automatic) {
      return options.node(key).text() == "auto" ? automatic : options.get<double>(key);
    };
    const bool smart = mode_ == Mode::Smart;
    step_size_ = number("step_size", smart ? 1e-3 : 0.3);
    epsilon_ = number("epsilon", smart ? step_size_ : 1.0);
    noise_ = number("noise", smart ? 1e-5 : 0.0);
    steps_ = static_cast<int64_t>(number("steps", mode_ == Mode::Pgd ? 3 : 1));
    if (mode_ == Mode::Fgm && steps_ != 1)
      fail(ErrorCode::BadInput,
           "{}: fgm takes one step to the edge of the ball; choose mode: pgd for {} steps",
           options.where("steps"), steps_);
    if (smart && noise_ == 0)
      fail(ErrorCode::BadInput,
           "{}: smart needs noise to begin with, since its divergence has no slope at no "
           "perturbation; give a positive number or auto",
           options.where("noise"));
  }

  void begin(TrainState& state) override {
    check_globs(state, sites_);
    if (mode_ != Mode::Smart || weight_ == 0 ||
        state.model.numerics().compute != kernels::DType::BF16)
      return;
    constexpr double kHalfUlp = 1.0 / 256;  // of numbers from 1 to 2, as behind an embedding's norm
    if (std::min(epsilon_, noise_) < kHalfUlp)
      fail(ErrorCode::BadInput,
           "adversarial: mode: smart begins with noise of {} and moves each value by at most {} "
           "(epsilon), which bf16 rounds away; give `precision: fp32`, or a noise and an epsilon "
           "of at least {:.4f}",
           noise_, epsilon_, kHalfUlp);
  }

  Loss around(TrainState& state, const Batch& batch, const LossFn& next) override {
    if (weight_ == 0) return next(batch);
    std::vector<Perturbed> places;
    WatchedLoss clean;
    {
      const Watch watch(*this, state.model, places);
      clean = watched(state, batch, next);
    }
    if (places.empty())
      fail(ErrorCode::Unsupported,
           "adversarial: no site of {} holds rows in this model's pass; give sites such as "
           "\"*.embed.out\"",
           sites_[0]);
    ascend(state, batch, next, clean.logits.defined() ? clean.logits.detach() : Tensor(), places);
    const WatchedLoss moved = perturbed(state, batch, next, places);
    Loss loss = clean.loss;
    const double count = loss.total.count;
    const Tensor extra = mode_ == Mode::Smart
                             ? divergence(clean.logits, moved.logits, batch) * count
                             : moved.loss.total.sum;
    loss.total.sum = loss.total.sum + extra * weight_;
    loss.parts["adversarial"] = {extra.detach(), count};
    return loss;
  }

 private:
  /// Learns which rows pass the chosen sites, while it lives.
  class Watch {
   public:
    Watch(const Adversarial& policy, Model& model, std::vector<Perturbed>& places) {
      for (const Site& site : model.sites()) {
        if (site.kind != SiteKind::Rows || site.hidden || !matches_any(site, policy.sites_))
          continue;
        edits_.push_back(std::make_unique<ScopedEdit>(
            model, site,
            Observe{[&places, site](const View& view) {
                      const at::ScalarType type =
                          view.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
                      places.push_back({site, view.rows, at::zeros(view.x.sizes(), type)});
                    },
                    {}},
            "adversarial"));
      }
    }

   private:
    std::vector<std::unique_ptr<ScopedEdit>> edits_;
  };

  WatchedLoss watched(const TrainState& state, const Batch& batch, const LossFn& next) const {
    if (mode_ == Mode::Smart) return watch_logits(state.model, batch, next, "adversarial");
    return {next(batch), {}};
  }

  WatchedLoss perturbed(const TrainState& state, const Batch& batch, const LossFn& next,
                        const std::vector<Perturbed>& places) const {
    std::vector<std::unique_ptr<ScopedEdit>> edits;
    for (const Perturbed& place : places)
      edits.push_back(
          std::make_unique<ScopedEdit>(state.model, place.site, Shift{place.delta}, "adversarial"));
    return watched(state, batch, next);
  }

  /// Leaves in `places` the perturbation; parameters get no gradient meanwhile.
  void ascend(const TrainState& state, const Batch& batch, const LossFn& next, const Tensor& clean,
              std::vector<Perturbed>& places) {
    for (const Param& param : state.params) param.value.set_requires_grad(false);
    for (size_t i = 0; i < places.size(); ++i) begin_at_noise(batch, i, places[i]);
    for (int64_t step = 0; step < steps_; ++step) {
      for (Perturbed& place : places) place.delta = as_leaf(place.delta);
      const WatchedLoss now = perturbed(state, batch, next, places);
      backward(mode_ == Mode::Smart ? divergence(clean, now.logits, batch) : now.loss.total.sum,
               state.model.numerics().recompute != 0);
      at::NoGradGuard no_grad;
      for (Perturbed& place : places) place.delta = stepped(place);
    }
    for (const Param& param : state.params) param.value.set_requires_grad(!param.frozen);
  }

  /// Keyed by the example, so that packing changes nothing.
  void begin_at_noise(const Batch& batch, size_t number, Perturbed& place) const {
    if (noise_ == 0) return;
    const Tensor examples = batch.fields.at("example");
    const int64_t width = place.delta.size(1);
    Tensor noise = at::empty(place.delta.sizes(), at::kDouble);
    double* out = static_cast<double*>(noise.data_ptr());
    for (int64_t b = 0; b < place.rows.sequences(); ++b) {
      const Stream64 stream = Stream64(batch.pass.seed, "adversarial")
                                  .with(static_cast<uint64_t>(batch.pass.step))
                                  .with(number)
                                  .with(static_cast<uint64_t>(examples[b].item<int64_t>()));
      const int64_t begin = place.rows.begin(b) * width;
      for (int64_t i = 0; i < place.rows.length(b) * width; ++i)
        out[begin + i] = noise_ * stream.normal(static_cast<uint64_t>(i));
    }
    place.delta = noise.to(place.delta.scalar_type());
  }

  /// One step up, back onto the ball: of each sequence's L2 norm (FGM, PGD) or each element's size
  /// (SMART).
  Tensor stepped(const Perturbed& place) const {
    const Tensor delta = place.delta.detach(), gradient = place.delta.grad();
    if (!gradient.defined() || !at::isfinite(gradient).all().item<bool>()) {
      log_warning("adversarial: a gradient by the embeddings is not finite; no perturbation there");
      return at::zeros_like(delta);
    }
    if (mode_ == Mode::Smart) {
      const Tensor slope = gradient / (gradient.abs().amax(-1, true) + 1e-12);
      return (delta + step_size_ * slope).clamp(-epsilon_, epsilon_);
    }
    const Tensor slope = gradient / (norms(gradient, place.rows) + 1e-12);
    if (mode_ == Mode::Fgm) return epsilon_ * slope;
    const Tensor moved = delta + step_size_ * slope;
    return moved * (epsilon_ / (norms(moved, place.rows) + 1e-12)).clamp_max(1);
  }

  /// The L2 norm of each sequence, beside each of its rows: [rows, 1].
  static Tensor norms(const Tensor& x, const RowIndex& rows) {
    Tensor result = at::empty({x.size(0), 1}, x.options());
    for (int64_t b = 0; b < rows.sequences(); ++b)
      result.slice(0, rows.begin(b), rows.end(b))
          .fill_(x.slice(0, rows.begin(b), rows.end(b)).norm().item<double>());
    return result;
  }

  std::vector<std::string> sites_;
  double weight_, epsilon_ = 0, step_size_ = 0, noise_ = 0;
  int64_t steps_ = 1;
  Mode mode_ = Mode::Fgm;
};

}  // namespace

void register_adversarial(Registry<TrainingPolicy>& registry) {
  Entry<TrainingPolicy> entry;
  entry.name = "adversarial";
  entry.summary =
      "adversarial training on embeddings: the loss at the worst nearby point (fgm, pgd), or how "
      "far predictions move there (smart), joins the loss; one more pass, and one more with half "
      "its backward a step of ascent";
  entry.reference =
      "Miyato et al. 2017, \"Adversarial Training Methods for Semi-Supervised Text "
      "Classification\", arXiv 1605.07725 (fgm); Madry et al. 2018, \"Towards Deep Learning Models "
      "Resistant to Adversarial Attacks\", arXiv 1706.06083 (pgd); Jiang et al. 2020, \"SMART\", "
      "arXiv 1911.03437, section 3.1 (smart, without the proximal point method)";
  entry.options = {
      {"mode", "choice", "fgm", "fgm|pgd|smart",
       "one step on the loss; several; or on the divergence of the predictions"},
      {"sites", "globs", "\"*.embed.out\"", "", "rows that are perturbed (globs over site names)"},
      {"weight", "number", "1", "[0, inf)", "weight of what joins the loss; 0: no effect"},
      {"epsilon", "number", "auto", "(0, inf)",
       "size of the perturbation: L2 norm of a sequence's rows (fgm, pgd: 1), or of each element "
       "(smart: step_size)"},
      {"step_size", "number", "auto", "(0, inf)", "pgd (0.3) and smart (1e-3): length of a step"},
      {"steps", "int", "auto", "[1, 100]", "steps of ascent: fgm 1, pgd 3, smart 1"},
      {"noise", "number", "auto", "[0, inf)", "deviation of the random start: 0, for smart 1e-5"},
  };
  entry.tiny = "{epsilon: 0.1}";
  entry.examples = {"{}", "{mode: pgd, steps: 5}", "{mode: smart, weight: 5}"};
  entry.make = [](const Options& options) { return std::make_unique<Adversarial>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
