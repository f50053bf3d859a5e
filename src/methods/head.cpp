// Linear probe: only the head trains.
#include "methods/registry.h"

namespace attune {
namespace {

class HeadOnly final : public Tuner {
 public:
  explicit HeadOnly(const Options& options) : fresh_only_(options.get<bool>("fresh_only")) {}
  void attach(Attachment& attachment) override {
    for (const Site& site : attachment.sites("head.*"))
      if (site.kind == SiteKind::Weight && (!fresh_only_ || attachment.fresh(site)))
        attachment.thaw(site);
  }

 private:
  bool fresh_only_;
};

}  // namespace

void register_head(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "head";
  entry.summary = "linear probe: only the head trains";
  entry.reference =
      "Alain and Bengio 2016, \"Understanding intermediate layers using linear classifier "
      "probes\", arXiv "
      "1610.01644";
  entry.options = {
      {"fresh_only", "bool", "false", "", "train only the parts that the checkpoint lacks"}};
  entry.learning_rate = 1e-2;
  entry.tiny = "{}";
  entry.make = [](const Options& options) { return std::make_unique<HeadOnly>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
