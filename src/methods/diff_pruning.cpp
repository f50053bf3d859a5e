// Diff pruning: a sparse difference from the base model, found through gates that open and close.
#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "base/threads.h"
#include "methods/registry.h"
#include "methods/thawed.h"
#include "tensor/autograd.h"
#include "tensor/choose.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

/// The stretched hard-concrete distribution between `low` < 0 and `high` > 1.
/// Reference: Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization",
/// arXiv 1712.01312, section 2.2.
struct HardConcrete {
  double low, high;

  struct Gate {
    Tensor value, slope;  // z, and dz / d alpha
  };
  /// s = sigmoid(log u - log(1 - u) + alpha), z = min(1, max(0, s (high - low) + low)); without u
  /// (undefined) s = sigmoid(alpha).
  Gate gate(const Tensor& alpha, const Tensor& u) const {
    const Tensor s = u.defined() ? u / (u + (1 - u) * (-alpha).exp()) : alpha.sigmoid();
    const Tensor stretched = s * (high - low) + low;
    const Tensor inside = stretched.gt(0).logical_and(stretched.lt(1));
    return {stretched.clamp(0, 1), inside * (s * (1 - s)) * (high - low)};
  }
  /// The probability that z is not zero.
  Tensor open(const Tensor& alpha) const { return (alpha - std::log(-low / high)).sigmoid(); }
};

/// One tensor of the base and what trains beside it.
struct Difference {
  Site site;
  bool bias = false;
  Tensor w, alpha, group;    // the tensor's shape twice, and [1] (undefined: no gate of the whole)
  Tensor mask;               // uint8, which elements of w train
  Tensor now;                // what is added in this pass
  std::vector<Edit*> shift;  // biases: the edits that add it
};

/// Numbers in (0, 1), four from a block of the generator.
template <class T>
void fill_uniform(const Tensor& out, uint64_t key) {
  T* values = pointer<T>(out);
  const int64_t count = out.numel();
  const std::array<uint32_t, 2> words{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  parallel_for((count + 3) / 4, 1 << 14, at::get_num_threads(), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const uint64_t at = static_cast<uint64_t>(block);
      const std::array<uint32_t, 4> drawn =
          philox({static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32), 0, 0}, words);
      for (int64_t i = 0; i < 4 && 4 * block + i < count; ++i)
        values[4 * block + i] = static_cast<T>(
            (static_cast<double>(drawn[static_cast<size_t>(i)]) + 0.5) / 4294967296.0);
    }
  });
}

/// Uniform numbers of a tensor's shape; undefined for key 0.
Tensor noise(const Tensor& like, uint64_t key) {
  if (key == 0) return Tensor();
  const Tensor u = at::empty_like(like.detach());
  if (like.scalar_type() == at::kDouble)
    fill_uniform<double>(u, key);
  else
    fill_uniform<float>(u, key);
  return u;
}

struct Gates {
  HardConcrete::Gate each, whole;
};
Gates gates_of(const Difference& d, const HardConcrete& shape, uint64_t key) {
  at::NoGradGuard no_grad;
  Gates gates;
  gates.each = shape.gate(d.alpha.detach(), noise(d.alpha, key));
  gates.whole = {at::ones({1}, d.w.options().requires_grad(false)), Tensor()};
  if (d.group.defined())
    gates.whole = shape.gate(d.group.detach(), noise(d.group, key == 0 ? 0 : mix(key, 1)));
  return gates;
}

/// delta = z_group z w as one node. The gates are made again in the backward pass, so that nothing
/// of the tensors' size is kept.
Tensor gated(const Difference& d, const HardConcrete& shape, uint64_t key) {
  const Tensor w = d.w.detach();
  const Gates gates = gates_of(d, shape, key);
  return record(
      w * gates.each.value * gates.whole.value, {d.w, d.alpha, d.group}, "diff_pruning_gates",
      [d, shape, key, w](const Tensors& g) -> Tensors {
        const Gates z = gates_of(d, shape, key);
        const Tensor by_gate = g[0] * w;
        Tensor group;
        if (d.group.defined()) group = (by_gate * z.each.value).sum().reshape({1}) * z.whole.slope;
        return {g[0] * z.each.value * z.whole.value, by_gate * z.each.slope * z.whole.value, group};
      });
}

class DiffPruning final : public Tuner {
 public:
  explicit DiffPruning(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        density_(options.get<double>("density")),
        penalty_(options.get<double>("penalty")),
        structured_(options.get<bool>("structured")),
        project_at_(options.get<double>("project_at")),
        alpha_(options.get<double>("gate_init")),
        gate_rate_(options.get<double>("gate_lr_scale")),
        shape_{options.get<double>("low"), options.get<double>("high")} {}

  void attach(Attachment& attachment) override {
    key_ = attachment.stream("gates");
    const Site shared = Site::shared();
    fixed_ = attachment.buffer(shared, "fixed", at::zeros({1}, at::kByte));
    reached_ = attachment.state(shared, "reached", at::zeros({1}, at::kDouble));
    gate_mask_ = attachment.state(shared, "gates_train", at::ones({1}, at::kByte));
    for (const std::string& glob : sites_)
      for (const Site& site : attachment.sites(glob))
        if (site.kind == SiteKind::Weight &&
            !(starts_with(site.name, "head.") && attachment.fresh(site)))
          attach_to(attachment, site);
    if (differences_.empty())
      fail(ErrorCode::BadInput,
           "diff_pruning: the chosen sites hold no tensor of the checkpoint; give other `sites`");
    if (kept() == 0)
      fail(ErrorCode::BadInput,
           "diff_pruning: density {} leaves none of {} parameters; give a larger one", density_,
           elements());
  }

  void prepare(const Pass& pass) override {
    if (fixed()) return;
    uint64_t number = 0;
    for (Difference& d : differences_) {
      const Stream64 step = Stream64(key_).with(static_cast<uint64_t>(pass.step)).with(++number);
      // Differs: outside training the gates take their value without noise, as Louizos et al. do
      // (equation 13); the authors' code draws them there too.
      d.now = gated(d, shape_, pass.training ? step.key() | 1 : 0);
      for (Edit* edit : d.shift) std::get<Shift>(*edit).by = d.now;
    }
  }

  bool settled() const override { return fixed(); }

  /// lambda times the expected number of differences that are not zero (equations 3 and 4).
  Tensor penalty() const override {
    if (fixed() || penalty_ == 0) return {};
    Tensor sum;
    for (const Difference& d : differences_) {
      Tensor open = shape_.open(d.alpha).sum();
      if (d.group.defined()) open = open * shape_.open(d.group).sum();
      sum = sum.defined() ? sum + open : open;
    }
    return sum * penalty_;
  }

  /// Projects once: the largest differences stay, and only they train from then on.
  /// Differs: one run and one learning-rate schedule hold both phases; the paper begins a second
  /// run for the fixed mask.
  void after_step(const Pass& pass) override {
    if (fixed()) return;
    // A pass carries the middle of its step's share of the run.
    const double end = std::max(pass.progress, 2 * pass.progress - reached_.item<double>());
    reached_.fill_(end);
    if (end < project_at_ - 1e-9) return;
    at::NoGradGuard no_grad;
    std::vector<Tensor> sizes;
    for (const Difference& d : differences_) {
      const Gates z = gates_of(d, shape_, 0);
      d.w.detach().mul_(z.each.value).mul_(z.whole.value);
      sizes.push_back(d.w.detach().abs());
    }
    const std::vector<Tensor> masks = largest_elements(sizes, kept());
    for (size_t i = 0; i < masks.size(); ++i) {
      Difference& d = differences_[i];
      d.mask.copy_(masks[i]);
      d.w.detach().masked_fill_(masks[i].eq(0), 0);
      mark_changed(d.w);
      d.alpha.detach().zero_();  // no gate is looked at from here on
      if (d.group.defined()) d.group.detach().zero_();
    }
    gate_mask_.zero_();
    fixed_.fill_(1);
    use_fixed();
  }

 private:
  bool fixed() const { return fixed_.item<uint8_t>() != 0; }
  int64_t elements() const {
    int64_t count = 0;
    for (const Difference& d : differences_) count += d.w.numel();
    return count;
  }
  int64_t kept() const { return std::llround(density_ * static_cast<double>(elements())); }
  void use_fixed() {
    for (Difference& d : differences_) {
      d.now = d.w;
      for (Edit* edit : d.shift) std::get<Shift>(*edit).by = d.w;
    }
  }

  void attach_to(Attachment& attachment, const Site& site) {
    if (!seen_.insert(site.id).second) return;
    const auto shares = [&](const Difference& d) {
      return d.site.storage == site.storage && d.site.copy_of < 0 && site.copy_of < 0;
    };
    const Tensor weight = attachment.weight(site), bias = attachment.bias(site);
    if (weight.defined()) {
      Difference& d = difference_of(attachment, site, "", weight, shares);
      attachment.add(site, Reweight{[&d](const Tensor& w) { return w + d.now; }});
    }
    if (bias.defined()) {
      Difference& d = difference_of(attachment, site, "bias_", bias, shares);
      d.shift.push_back(&attachment.add(site, Shift{d.w}));
    }
  }

  /// That of the tensor, made when it is new: tied sites have one.
  template <class Shares>
  Difference& difference_of(Attachment& attachment, const Site& site, const std::string& part,
                            const Tensor& base, const Shares& shares) {
    for (Difference& d : differences_)
      if (shares(d) && d.bias != part.empty()) return d;
    Difference d;
    d.site = site;
    d.bias = !part.empty();
    d.mask = attachment.state(site, part + "mask", at::ones(base.sizes(), at::kByte));
    Learn learn;
    learn.mask = d.mask;
    const std::vector<int64_t> shape = base.sizes().vec();
    d.w = attachment.parameter(site, part + "difference", attachment.zeros(shape), learn);
    Learn gates;
    gates.lr_scale = gate_rate_;
    gates.weight_decay = 0;
    gates.mask = gate_mask_;
    d.alpha = attachment.parameter(site, part + "gates", attachment.ones(shape) * alpha_, gates);
    if (structured_)
      d.group = attachment.parameter(site, part + "group", attachment.ones({1}) * alpha_, gates);
    d.now = d.w;
    differences_.push_back(d);
    return differences_.back();
  }

  std::vector<std::string> sites_;
  double density_, penalty_;
  bool structured_;
  double project_at_, alpha_, gate_rate_;
  HardConcrete shape_;
  uint64_t key_ = 0;
  Tensor fixed_, reached_, gate_mask_;
  std::deque<Difference> differences_;  // a deque: addresses stay
  std::set<int> seen_;
};

/// Before the projection: a difference and a gate for every parameter, and a gate a tensor.
int64_t count_of(const std::vector<Site>& sites, const Options& options) {
  int64_t tensors = 0;
  std::set<std::pair<int, bool>> seen;
  for (const Site& site : sites)
    if (site.kind == SiteKind::Weight)
      for (const bool bias : {false, true})
        if ((!bias || site.bias) && seen.insert({site.storage, bias}).second) ++tensors;
  return 2 * count_chosen(sites, ThawChoice{{}}) + (options.get<bool>("structured") ? tensors : 0);
}

}  // namespace

void register_diff_pruning(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "diff_pruning";
  entry.summary =
      "diff pruning: a difference for every parameter behind gates that a penalty closes, then cut "
      "down to a share of them, which goes on training";
  entry.reference =
      "Guo et al. 2021, \"Parameter-Efficient Transfer Learning with Diff Pruning\", arXiv "
      "2012.07463";
  entry.options = {
      {"sites", "globs", "\"*\"", "",
       "sites whose tensors get differences (globs over site names); a head that the checkpoint "
       "lacks trains whole"},
      {"density", "number", "0.005", "(0, 1]",
       "share of the differences that stays, those of largest magnitude among all tensors"},
      {"project_at", "number", "0.5", "(0, 1]",
       "share of the run after which the others become zero for good"},
      {"structured", "bool", "true", "", "also one gate a tensor, which multiplies its gates"},
      {"penalty", "number", "1.25e-7", "[0, inf)",
       "weight of the expected number of differences that are not zero"},
      {"gate_init", "number", "5", "", "the gates' parameters begin here"},
      {"gate_lr_scale", "number", "2000", "(0, inf)",
       "learning rate of the gates over that of the differences"},
      {"low", "number", "-1.5", "(-inf, 0)", "gates are stretched to begin here, then cut to 0"},
      {"high", "number", "1.5", "(1, inf)", "and to end here, then cut to 1"},
  };
  entry.learning_rate = 1e-4;
  entry.tiny = "{density: 0.2, penalty: 1e-4, gate_init: 0.5, gate_lr_scale: 1}";
  entry.examples = {"{}", "{density: 0.01, structured: false, sites: \"enc.*\"}"};
  entry.make = [](const Options& options) { return std::make_unique<DiffPruning>(options); };
  entry.count = count_of;
  registry.add(std::move(entry));
}

}  // namespace attune
