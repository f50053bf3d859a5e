// MAM: a prefix in every attention and a large scaled parallel adapter at the feed-forward part.
#include "methods/registry.h"

namespace attune {

void register_prefix(Registry<Tuner>& registry);
void register_parallel_adapter(Registry<Tuner>& registry);

namespace {

Registry<Tuner> parts() {
  Registry<Tuner> registry;
  register_prefix(registry);
  register_parallel_adapter(registry);
  return registry;
}

Options options_of(const Entry<Tuner>& entry, const Json& given) {
  return Options(entry.options, Node::from_json(given, {"mam", 0, 0}), "mam");
}

/// Keys and values trained themselves need far larger steps than an adapter's matrices, those a
/// network makes do not (docs/results/rates.md).
double prefix_lr_scale(const Options& options) {
  if (options.node("prefix_lr_scale").text() != "auto")
    return options.get<double>("prefix_lr_scale");
  return options.get<bool>("projection") ? 1 : 30;
}

Options prefix_options(const Registry<Tuner>& registry, const Options& options) {
  return options_of(registry.at("prefix"), Json{{"length", options.get<int64_t>("prefix_length")},
                                                {"projection", options.get<bool>("projection")},
                                                {"hidden", options.get<int64_t>("hidden")},
                                                {"lr_scale", prefix_lr_scale(options)}});
}

Options mam_adapter_options(const Registry<Tuner>& registry, const Options& options) {
  return options_of(registry.at("parallel_adapter"),
                    Json{{"size", options.get<int64_t>("size")},
                         {"scaling", options.node("scaling").to_json()},
                         {"dropout", options.get<double>("dropout")}});
}

/// Nothing but its two parts: they stand for themselves, in either order.
class Mam final : public Tuner {
 public:
  explicit Mam(const Options& options) {
    const Registry<Tuner> registry = parts();
    prefix_ = registry.at("prefix").make(prefix_options(registry, options));
    adapter_ = registry.at("parallel_adapter").make(mam_adapter_options(registry, options));
  }
  void attach(Attachment& attachment) override {
    prefix_->attach(attachment);
    adapter_->attach(attachment);
  }
  void prepare(const Pass& pass) override {
    prefix_->prepare(pass);
    adapter_->prepare(pass);
  }

 private:
  std::unique_ptr<Tuner> prefix_, adapter_;
};

}  // namespace

void register_mam(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "mam";
  entry.summary =
      "mix-and-match adapter: a prefix in every attention and a scaled parallel adapter at the "
      "feed-forward part";
  entry.reference =
      "He et al. 2022, \"Towards a Unified View of Parameter-Efficient Transfer Learning\", arXiv "
      "2110.04366, section 4.6";
  entry.options = {
      {"prefix_length", "int", "30", "[0, inf)", "keys and values a site (classification: 16)"},
      {"projection", "bool", "true", "", "make the prefix by a network from embeddings"},
      {"hidden", "int", "800", "[1, inf)", "inner width of that network"},
      {"prefix_lr_scale", "number", "auto", "(0, inf)",
       "learning rate of the prefix over that of the adapter; auto: 30 for keys and values trained "
       "themselves, 1 for a network"},
      {"size", "int", "512", "[1, inf)", "inner width of the adapter (classification: 16)"},
      {"scaling", "any", "4", "", "what multiplies the adapter: a number, or learnable"},
      {"dropout", "number", "0", "[0, 1)", "dropout inside the adapter while training"},
  };
  entry.learning_rate = 1e-3;
  entry.identity_at_start = false;
  entry.tiny = "{prefix_length: 2, hidden: 4, size: 3, scaling: 2}";
  entry.examples = {"{prefix_length: 16, size: 16, scaling: 2}", "{}"};
  entry.make = [](const Options& options) { return std::make_unique<Mam>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const Registry<Tuner> registry = parts();
    std::vector<Site> attentions, rows;
    for (const Site& site : sites)
      (site.kind == SiteKind::KeyValue ? attentions : rows).push_back(site);
    return registry.at("prefix").count(attentions, prefix_options(registry, options)) +
           registry.at("parallel_adapter").count(rows, mam_adapter_options(registry, options));
  };
  registry.add(std::move(entry));
}

}  // namespace attune
