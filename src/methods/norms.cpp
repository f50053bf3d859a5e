// Norm tuning: only the scales and biases of normalisation layers train.
#include "base/error.h"
#include "methods/registry.h"

namespace attune {
namespace {

class Norms final : public Tuner {
 public:
  explicit Norms(const Options& options) : sites_(options.get<std::vector<std::string>>("sites")) {}
  void attach(Attachment& attachment) override {
    int64_t found = 0;
    for (const std::string& glob : sites_) {
      for (const Site& site : attachment.sites(glob)) {
        if (site.kind != SiteKind::Weight || site.weight != WeightKind::Norm) continue;
        attachment.thaw(site);
        ++found;
      }
    }
    if (found == 0)
      fail(ErrorCode::BadInput, "norms: none of the chosen sites is a normalisation layer");
  }

 private:
  std::vector<std::string> sites_;
};

}  // namespace

void register_norms(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "norms";
  entry.summary = "only the normalisation layers train";
  entry.reference =
      "Qi et al. 2022, \"Parameter-Efficient Tuning on Layer Normalization for Pre-trained "
      "Language Models\", "
      "arXiv 2211.08682";
  entry.options = {
      {"sites", "globs", "\"*\"", "", "sites among which the norms train (globs over site names)"}};
  entry.learning_rate = 3e-3;
  entry.rate_by_width = false;
  entry.tiny = "{}";
  entry.make = [](const Options& options) { return std::make_unique<Norms>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options&) {
    int64_t count = 0;
    for (const Site& site : sites)
      if (site.weight == WeightKind::Norm) count += site.bias ? 2 * site.out : site.out;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
