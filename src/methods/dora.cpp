// DoRA: a low-rank update turns the rows of a weight, and a magnitude vector sets their lengths.
#include "base/error.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// The length of every row [out, 1]; a row of zeros has the smallest positive length, so that it
/// stays zero instead of becoming not a number.
Tensor row_lengths(const Tensor& w) {
  return w.norm(2, {1}, true).clamp_min(1e-30);
}

class Dora final : public Tuner {
 public:
  explicit Dora(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options, "rank", 1, true),
        alpha_(options, "alpha", 0, false),
        rslora_(options.get<bool>("rslora")),
        detach_(options.get<bool>("detach_norm")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = projections(attachment, sites_, "dora");
    rank_.check(sites, "dora");
    alpha_.check(sites, "dora");
    for (const Site& site : sites) attach_to(attachment, site);
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) const {
    const int64_t rank = rank_.whole_at(site);
    check_rank("dora", rank, site);
    const Tensor down = attachment.parameter(
        site, "down", attachment.uniform(site, "down", {rank, site.in}, kaiming_bound(site.in)));
    const Tensor up = attachment.parameter(site, "up", attachment.zeros({site.out, rank}));
    const Tensor magnitude = attachment.parameter(
        site, "magnitude", row_lengths(attachment.weight(site).detach()).reshape({-1}));
    const double scale = low_rank_scale(alpha_.at(site), rank, rslora_);
    const bool detach = detach_;
    // W' = m (W + s B A) / ||W + s B A||, by rows (equation 5). The norm counts as a constant in
    // the backward pass, as section 4.3 proposes and PEFT does, unless the full gradient is asked
    // for.
    attachment.add(site, Reweight{[=](const Tensor& w) {
                     const Tensor direction = w + attune::matmul(up, down) * scale;
                     const Tensor length = row_lengths(detach ? direction.detach() : direction);
                     return direction * (magnitude.reshape({-1, 1}) / length);
                   }});
  }

  std::vector<std::string> sites_;
  ByPattern rank_, alpha_;
  bool rslora_, detach_;
};

}  // namespace

void register_dora(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "dora";
  entry.summary =
      "weight-decomposed low-rank update: W' = m (W + s up down) / ||W + s up down|| by rows";
  entry.reference =
      "Liu et al. 2024, \"DoRA: Weight-Decomposed Low-Rank Adaptation\", arXiv 2402.09353, "
      "equation 5";
  entry.options = {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "8", "[1, inf)", "inner size of the update of the direction"},
      {"alpha", "number", "16", "(0, inf)", "strength: the update is scaled by alpha / rank"},
      {"rslora", "bool", "false", "", "scale by alpha / sqrt(rank) instead"},
      {"rank_pattern", "map", "{}", "",
       "other ranks by site: glob to rank, the first match counts"},
      {"alpha_pattern", "map", "{}", "",
       "other strengths by site: glob to alpha, the first match counts"},
      {"detach_norm", "bool", "true", "",
       "treat the norm as a constant in the backward pass (less memory, as the paper does)"},
  };
  entry.learning_rate = 1e-3;
  // The suites compare gradients with finite differences, which know of no constant norm.
  entry.tiny = "{rank: 2, alpha: 4, detach_norm: false}";
  entry.examples = {"{}", "{rank: 16, alpha: 32, sites: \"*.self.[qkvo]\"}",
                    "{rank: 8, rank_pattern: {\"*.ffn.*\": 4}, sites: [\"*.self.[qv]\", "
                    "\"*.ffn.up\"]}"};
  entry.make = [](const Options& options) { return std::make_unique<Dora>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const ByPattern rank(options, "rank", 1, true);
    int64_t count = 0;
    for (const Site& site : sites) count += rank.whole_at(site) * (site.in + site.out) + site.out;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
