// BitFit: only bias vectors train.
#include "base/error.h"
#include "methods/registry.h"

namespace attune {
namespace {

class Bias final : public Tuner {
 public:
  explicit Bias(const Options& options) : sites_(options.get<std::vector<std::string>>("sites")) {}
  void attach(Attachment& attachment) override {
    int64_t found = 0;
    for (const std::string& glob : sites_) {
      for (const Site& site : attachment.sites(glob)) {
        if (site.kind != SiteKind::Weight || !site.bias) continue;
        attachment.thaw(site, {}, Part::Bias);
        ++found;
      }
    }
    if (found == 0)
      fail(ErrorCode::BadInput, "bias: none of the chosen sites has a bias in this model");
  }

 private:
  std::vector<std::string> sites_;
};

}  // namespace

void register_bias(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "bias";
  entry.summary = "BitFit: only the bias vectors train";
  entry.reference =
      "Ben Zaken et al. 2022, \"BitFit: Simple Parameter-efficient Fine-tuning for "
      "Transformer-based Masked "
      "Language-models\", arXiv 2106.10199";
  entry.options = {
      {"sites", "globs", "\"*\"", "", "sites whose biases train (globs over site names)"}};
  entry.learning_rate = 3e-3;
  entry.rate_by_width = false;
  entry.tiny = "{}";
  entry.make = [](const Options& options) { return std::make_unique<Bias>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options&) {
    int64_t count = 0;
    for (const Site& site : sites) count += site.bias ? site.out : 0;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
