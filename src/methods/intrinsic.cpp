// Intrinsic dimension: all chosen projections move in one random subspace of few dimensions.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "methods/common.h"
#include "methods/fastfood.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Which of the layers a site belongs to, for one strength each; sites outside blocks form one.
std::string layer_of(const Site& site) {
  const std::string block = block_of(site);
  return block.empty() ? "outside" : block;
}

class Intrinsic final : public Tuner {
 public:
  explicit Intrinsic(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        dimensions_(options.get<int64_t>("dimensions")),
        layerwise_(options.get<bool>("layerwise")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = projections(attachment, sites_, "intrinsic");
    std::map<std::string, int64_t> layers;
    for (const Site& site : sites)
      layers.try_emplace(layer_of(site), static_cast<int64_t>(layers.size()));
    const int64_t strengths = layerwise_ ? static_cast<int64_t>(layers.size()) : 0;
    if (dimensions_ <= strengths)
      fail(ErrorCode::BadInput,
           "intrinsic: of {} dimensions {} are the strengths of that many layers, which leaves "
           "none for the subspace; give more, or layerwise: false",
           dimensions_, strengths);
    point_ =
        attachment.parameter(Site::shared(), "point", attachment.zeros({dimensions_ - strengths}));
    // No weight decay on the strengths: it would pull them towards zero.
    if (layerwise_)
      strength_ = attachment.parameter(Site::shared(), "strength", attachment.ones({strengths}),
                                       Learn{1, 0, {}});
    key_ = attachment.buffer(
        Site::shared(), "key",
        at::full({1}, static_cast<int64_t>(attachment.stream("fastfood")), at::kLong));
    for (const Site& site : sites)
      attachment.add(site, Reweight{[this, name = site.name, layer = layers.at(layer_of(site))](
                                        const Tensor& w) { return moved(w, name, layer); }});
  }

 private:
  Tensor moved(const Tensor& w, const std::string& name, int64_t layer) {
    Tensor step = project(projection(name, w.numel()), point_).reshape(w.sizes());
    if (layerwise_) step = step * strength_.select(0, layer);
    return w + step;
  }

  /// The random matrices of a site. Only their key is saved, and loading replaces it, so they are
  /// drawn when first used.
  std::shared_ptr<const Fastfood> projection(const std::string& name, int64_t length) {
    const uint64_t key = static_cast<uint64_t>(key_.item<int64_t>());
    if (key != drawn_) drawn_sites_.clear();
    drawn_ = key;
    std::shared_ptr<const Fastfood>& site = drawn_sites_[name];
    if (!site)
      site =
          std::make_shared<const Fastfood>(Stream64(key).with(name).key(), point_.numel(), length);
    return site;
  }

  std::vector<std::string> sites_;
  int64_t dimensions_;
  bool layerwise_;
  Tensor point_, strength_, key_;
  uint64_t drawn_ = 0;
  std::map<std::string, std::shared_ptr<const Fastfood>> drawn_sites_;  // shared with graphs
};

}  // namespace

void register_intrinsic(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "intrinsic";
  entry.summary = "one point in a random subspace moves all chosen projections: W + strength * P z";
  entry.reference =
      "Aghajanyan et al. 2020, \"Intrinsic Dimensionality Explains the Effectiveness of Language "
      "Model Fine-Tuning\", arXiv 2012.13255, equations 2 and 3; Li et al. 2018, arXiv 1804.08838";
  entry.options = {
      {"sites", "globs", "[\"*.[qkvo]\", \"*.ffn.*\"]", "",
       "projections that move (globs over site names); each takes 8 to 16 bytes an entry"},
      {"dimensions", "int", "1000", "[1, inf)",
       "trained numbers in all, the layers' strengths included"},
      {"layerwise", "bool", "true", "",
       "structure-aware (SAID): one trained strength a layer, taken from the dimensions"},
  };
  entry.learning_rate = 5e-3;
  entry.tiny = "{dimensions: 24}";
  entry.examples = {"{}", "{dimensions: 200, layerwise: false}",
                    "{sites: \"*.self.[qv]\", dimensions: 5000}"};
  entry.make = [](const Options& options) { return std::make_unique<Intrinsic>(options); };
  entry.count = [](const std::vector<Site>&, const Options& options) {
    return options.get<int64_t>("dimensions");
  };
  registry.add(std::move(entry));
}

}  // namespace attune
