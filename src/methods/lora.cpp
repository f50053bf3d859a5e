// LoRA: a trained low-rank update beside frozen projections.
#include <cmath>

#include "base/error.h"
#include "methods/registry.h"

namespace attune {
namespace {

class Lora final : public Tuner {
 public:
  explicit Lora(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        alpha_(options.get<double>("alpha")),
        dropout_(options.get<double>("dropout")),
        rslora_(options.get<bool>("rslora")) {}

  void attach(Attachment& attachment) override {
    for (const std::string& glob : sites_)
      for (const Site& site : attachment.sites(glob)) attach_to(attachment, site);
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    if (site.kind != SiteKind::Weight || site.weight != WeightKind::Projection) return;
    // A ~ U(-1/sqrt(in), 1/sqrt(in)) is Kaiming-uniform with a = sqrt(5), as PEFT draws it.
    const double bound = 1.0 / std::sqrt(static_cast<double>(site.in));
    LowRank edit;
    edit.down = attachment.parameter(site, "down",
                                     attachment.uniform(site, "down", {rank_, site.in}, bound));
    edit.up = attachment.parameter(site, "up", attachment.zeros({site.out, rank_}));
    edit.scale = rslora_ ? alpha_ / std::sqrt(static_cast<double>(rank_))
                         : alpha_ / static_cast<double>(rank_);
    edit.dropout = dropout_;
    attachment.add(site, edit);
  }

  std::vector<std::string> sites_;
  int64_t rank_;
  double alpha_, dropout_;
  bool rslora_;
};

}  // namespace

void register_lora(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "lora";
  entry.summary = "low-rank update beside frozen projections: y += alpha / rank * (x down^T) up^T";
  entry.reference =
      "Hu et al. 2021, \"LoRA: Low-Rank Adaptation of Large Language Models\", arXiv 2106.09685; "
      "rsLoRA: "
      "Kalajdzievski 2023, arXiv 2312.03732";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "8", "[1, inf)", "inner size"},
      {"alpha", "number", "16", "(0, inf)", "strength: the update is scaled by alpha / rank"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the update's input"},
      {"rslora", "bool", "false", "", "scale by alpha / sqrt(rank) instead"},
  };
  entry.learning_rate = 5e-4;
  entry.tiny = "{rank: 2, alpha: 4}";
  entry.make = [](const Options& options) { return std::make_unique<Lora>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) count += options.get<int64_t>("rank") * (site.in + site.out);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
