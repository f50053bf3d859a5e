// A feed-forward part as a mixture of copies, each with an adapter of its own.
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/sequences.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

class MoeAdapter final : public Tuner {
 public:
  explicit MoeAdapter(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        experts_(options.get<int>("experts")),
        top_k_(options.get<int>("top_k")),
        size_(options.get<int64_t>("size")),
        balance_(options.get<double>("balance")) {}

  void attach(Attachment& attachment) override {
    for (const Site& part : flow_sites(attachment, sites_, SiteKind::Part, "moe_adapter")) {
      const Tensor router = attachment.parameter(
          part, "router", attachment.normal(part, "router", {experts_, part.in}, 0.02));
      const Route route{[this, router](const View& view) { return weights(view, router); },
                        experts_, top_k_};
      for (const std::vector<Site>& expert : attachment.route(part, route))
        for (const Site& site : expert)
          if (site.kind == SiteKind::Rows && ends_with(site.name, ".out"))
            attach_adapter(attachment, site);
    }
  }

  void prepare(const Pass&) override { loads_.clear(); }

  /// balance * experts * sum over experts of (share of rows it serves) * (its mean probability), a
  /// mixture. Reference: Fedus et al. 2021, "Switch Transformers", arXiv 2101.03961, equation 4.
  Tensor penalty() const override {
    if (balance_ == 0 || loads_.empty()) return {};
    Tensor sum = loads_[0];
    for (size_t i = 1; i < loads_.size(); ++i) sum = sum + loads_[i];
    return sum * (balance_ / static_cast<double>(loads_.size()));
  }

 private:
  /// Probabilities of the chosen experts, divided by their sum, so that untrained adapters leave
  /// the part as it was. Differs: with one expert a row the Switch router multiplies by the
  /// probability itself; here the value is 1 and the gradient that of the logarithm.
  Tensor weights(const View& view, const Tensor& router) {
    const Tensor p =
        attune::matmul(cast(view.x, router.scalar_type()), router, false, true).softmax(-1);
    const Tensor best = std::get<1>(p.detach().topk(top_k_, 1));
    const Tensor chosen = at::zeros_like(p.detach()).scatter_(1, best, 1);
    loads_.push_back((chosen.mean(0) * p.mean(0)).sum() * static_cast<double>(experts_) /
                     static_cast<double>(top_k_));
    const Tensor kept = p * chosen;
    const Tensor sum = kept.sum(1, true);
    return kept / (top_k_ == 1 ? sum.detach() : sum);
  }

  void attach_adapter(Attachment& attachment, const Site& site) const {
    const Tensor down = attachment.parameter(
        site, "down", attachment.uniform(site, "down", {size_, site.in}, kaiming_bound(site.in)));
    const Tensor down_bias = attachment.parameter(site, "down_bias", attachment.zeros({size_}));
    const Tensor up = attachment.parameter(site, "up", attachment.zeros({site.in, size_}));
    const Tensor up_bias = attachment.parameter(site, "up_bias", attachment.zeros({site.in}));
    attachment.add(site, Apply{[=](const View& view) {
                                 const Tensor x = cast(view.x, down.scalar_type());
                                 const Tensor inner =
                                     (attune::matmul(x, down, false, true) + down_bias).relu();
                                 return view.x +
                                        cast(attune::matmul(inner, up, false, true) + up_bias,
                                             view.x.scalar_type());
                               },
                               {}});
  }

  std::vector<std::string> sites_;
  int experts_, top_k_;
  int64_t size_;
  double balance_;
  std::vector<Tensor> loads_;  // of this pass, one a mixture
};

}  // namespace

void register_moe_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "moe_adapter";
  entry.summary = "feed-forward parts as mixtures of copies, each with an adapter of its own";
  entry.reference =
      "Wang et al. 2022, \"AdaMix: Mixture-of-Adaptations for Parameter-efficient Model Tuning\", "
      "arXiv 2205.12410; load balancing: Fedus et al. 2021, arXiv 2101.03961";
  entry.options = {
      {"sites", "globs", "\"*.ffn\"", "", "parts that become mixtures (globs over site names)"},
      {"experts", "int", "4", "[1, 64]", "copies of a part"},
      {"top_k", "int", "1", "[1, 64]", "copies that serve a row"},
      {"size", "int", "16", "[1, inf)", "inner width of each copy's adapter"},
      {"balance", "number", "0.01", "[0, inf)", "strength of the load-balancing loss"},
  };
  entry.learning_rate = 5e-4;
  entry.excludes = {
      {"moe_adapter", "a part can be one mixture only; give one of them more experts"}};
  entry.tiny = "{experts: 3, top_k: 2, size: 3}";
  entry.examples = {"{}", "{experts: 8, top_k: 2, sites: \"*.[02468].ffn\"}"};
  entry.make = [](const Options& options) { return std::make_unique<MoeAdapter>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const int64_t size = options.get<int64_t>("size"), experts = options.get<int64_t>("experts");
    int64_t count = 0;
    for (const Site& site : sites) {
      if (site.kind == SiteKind::Part) count += experts * site.in;
      if (site.kind == SiteKind::Rows) count += 2 * size * site.in + size + site.in;
    }
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
