// Full fine-tuning: every tensor of the chosen sites trains.
#include "methods/registry.h"

namespace attune {
namespace {

class Full final : public Tuner {
 public:
  explicit Full(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")), tied_(options.get<bool>("tied")) {}
  void attach(Attachment& attachment) override {
    Learn learn;
    learn.alone = !tied_;
    for (const std::string& glob : sites_)
      for (const Site& site : attachment.sites(glob))
        if (site.kind == SiteKind::Weight) attachment.thaw(site, learn);
  }

 private:
  std::vector<std::string> sites_;
  bool tied_;
};

}  // namespace

void register_full(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "full";
  entry.summary = "full fine-tuning: every tensor trains";
  entry.reference =
      "Devlin et al. 2019, \"BERT: Pre-training of Deep Bidirectional Transformers\", arXiv "
      "1810.04805";
  entry.options = {
      {"sites", "globs", "\"*\"", "", "sites whose tensors train (globs over site names)"},
      {"tied", "bool", "true", "",
       "sites that share a tensor (embeddings and the output) go on sharing it; false: each of "
       "them "
       "trains a copy of its own"}};
  entry.learning_rate = 1e-4;
  entry.tiny = "{}";
  entry.make = [](const Options& options) { return std::make_unique<Full>(options); };
  registry.add(std::move(entry));
}

}  // namespace attune
