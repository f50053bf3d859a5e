// Adapters: a trained bottleneck behind a sub-layer, with a residual of its own.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "methods/adapters.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

const char* default_sites(bool pfeiffer) {
  return pfeiffer ? "*.ffn.out" : "*.{self,cross,ffn}.out";
}

/// How many of the lowest blocks go without their adapters.
/// Reference: Rueckle et al. 2021, "AdapterDrop: On the Efficiency of Adapters in Transformers",
/// arXiv 2010.11918, section 3: fixed, or drawn anew for every step.
struct LayerDrop {
  int64_t random = 0, evaluation = 0;
  uint64_t key = 0;
  int64_t blocks(const Pass& pass) const {
    if (!pass.training) return evaluation;
    if (random == 0) return 0;
    const Stream64 stream = Stream64(key).with(pass.seed).with(static_cast<uint64_t>(pass.step));
    return static_cast<int64_t>(stream.below(0, static_cast<uint64_t>(random) + 1));
  }
};

class Adapter final : public Tuner {
 public:
  explicit Adapter(const Options& options)
      : shared_(options, "adapter"),
        sites_(options.get<std::vector<std::string>>("sites")),
        pfeiffer_(options.get<std::string>("placement") == "pfeiffer"),
        residual_(options.get<bool>("residual")),
        norm_eps_(options.get<double>("norm_eps")),
        without_(options.get<int64_t>("drop_layers")) {
    drop_.random = options.get<int64_t>("random_drop_layers");
    drop_.evaluation = options.get<int64_t>("evaluate_without_layers");
    if (!residual_)
      log_warning(
          "adapter: without its residual an adapter behind a sub-layer stands in the way "
          "of what the model has learned and is known to collapse");
  }

  void attach(Attachment& attachment) override {
    drop_.key = attachment.stream("layers");
    const std::vector<Site> sites =
        sites_of_kinds(attachment, sites_, default_sites(pfeiffer_), {SiteKind::Rows}, "adapter");
    check_layers(sites);
    for (const Site& site : sites)
      if (site.layer < 0 || site.layer >= without_) attach_to(attachment, site);
  }

  void prepare(const Pass& pass) override { dropped_ = drop_.blocks(pass); }

 private:
  void check_layers(const std::vector<Site>& sites) const {
    int64_t layers = 0;
    for (const Site& site : sites) layers = std::max<int64_t>(layers, site.layer + 1);
    const auto check = [&](const char* name, int64_t value, int64_t most) {
      if (value > most)
        fail(ErrorCode::BadInput,
             "adapter: {} {} is more than the {} blocks that get an adapter allow; give at most {}",
             name, value, layers, most);
    };
    // At least one block keeps its adapter for good; any number may be left out for a step.
    check("drop_layers", without_, std::max<int64_t>(0, layers - 1));
    check("random_drop_layers", drop_.random, layers);
    check("evaluate_without_layers", drop_.evaluation, layers);
  }

  void attach_to(Attachment& attachment, const Site& site) {
    const AdapterLayer layer = shared_.make(attachment, site, site.out, site.out);
    if (pfeiffer_ && site.name.ends_with("ffn.out")) {
      attach_behind_norm(attachment, site, layer);
      return;
    }
    const auto run = [this, layer, residual = residual_, block = site.layer](const View& view) {
      if (block >= 0 && block < dropped_) return view.x;
      return layer.run(view, view.x, residual ? view.x : Tensor());
    };
    attachment.add(site, Apply{run, {}, /*by_row=*/true});
  }

  /// The adapter reads the sub-layer's output after the residual sum and the block's own norm (in
  /// pre-norm stacks: after the sum); what it adds goes into the same sum once more, so that an
  /// adapter of zeros changes nothing.
  /// Differs: the norm is that of the checkpoint even where another method trains it, and the
  /// checkpoint's own dropout acts behind the adapter, not before it.
  void attach_behind_norm(Attachment& attachment, const Site& site, const AdapterLayer& layer) {
    const std::vector<Site>& all = attachment.all_sites();
    const std::string block = block_of(site);
    const Site* mid = find_site(all, block + "resid.mid");
    if (mid == nullptr)
      fail(ErrorCode::BadInput,
           "adapter: placement pfeiffer at {} needs the rows {}resid.mid, which this model does "
           "not have (its parts run side by side); use placement: houlsby",
           site.name, block);
    Tensor gamma, beta;
    const Site* norm = find_site(all, block + "ffn.norm");
    if (norm != nullptr && norm->bias && !has_final_norm(all, site)) {
      gamma = attachment.weight(*norm);
      beta = attachment.bias(*norm);
    }
    const auto run = [this, layer, gamma, beta, eps = norm_eps_, residual = residual_,
                      number = site.layer, read = mid->name](const View& view) {
      if (number < dropped_) return view.x;
      const Tensor& stream = view.reads.at(read);
      const Tensor input =
          gamma.defined() ? layer_norm(view.x, stream, gamma, beta, eps) : view.x + stream;
      return layer.run(view, input, residual ? view.x : Tensor());
    };
    attachment.add(site, Apply{run, {mid->name}, /*by_row=*/true});
  }

  /// A stack whose blocks begin with their norms ends with one more; one whose blocks end with
  /// theirs does not.
  static bool has_final_norm(const std::vector<Site>& all, const Site& site) {
    return find_site(all, site.name.substr(0, site.name.find('.')) + ".final.norm") != nullptr;
  }

  AdapterOptions shared_;
  std::vector<std::string> sites_;
  bool pfeiffer_, residual_;
  double norm_eps_;
  int64_t without_, dropped_ = 0;
  LayerDrop drop_;
};

std::vector<Option> options_of_adapter() {
  std::vector<Option> options = {
      {"sites", "globs", "auto", "",
       "rows that get an adapter (globs over site names); auto: as placement says"},
      {"placement", "choice", "houlsby", "houlsby|pfeiffer",
       "houlsby: behind attention and behind the feed-forward part, on their output; pfeiffer: "
       "behind the feed-forward part alone, on its output after residual sum and norm (sites other "
       "than ffn.out: as houlsby)"},
  };
  for (Option& option : adapter_options({})) options.push_back(std::move(option));
  const std::vector<Option> own = {
      {"residual", "bool", "true", "", "add the adapter's input to its output"},
      {"norm_eps", "number", "1e-12", "(0, inf)",
       "placement pfeiffer: epsilon of the model's own norm, which the adapter's input goes "
       "through (layer_norm_eps of config.json)"},
      {"drop_layers", "int", "0", "[0, inf)", "the lowest blocks, this many, get no adapter"},
      {"random_drop_layers", "int", "0", "[0, inf)",
       "in each training step the adapters of the lowest 0 to this many blocks are left out, drawn "
       "anew"},
      {"evaluate_without_layers", "int", "0", "[0, inf)",
       "outside training the adapters of the lowest blocks, this many, are left out"},
  };
  options.insert(options.end(), own.begin(), own.end());
  return options;
}

}  // namespace

void register_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "adapter";
  entry.summary = "a bottleneck with a residual behind sub-layers: h += scale * f(h down^T) up^T";
  entry.reference =
      "Houlsby et al. 2019, \"Parameter-Efficient Transfer Learning for NLP\", arXiv 1902.00751; "
      "Pfeiffer et al. 2020, \"MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual "
      "Transfer\", arXiv 2005.00052; AdapterDrop: Rueckle et al. 2021, arXiv 2010.11918";
  entry.options = options_of_adapter();
  entry.learning_rate = 2e-3;
  entry.identity_at_start = false;  // near it: N(0, 0.02^2), as published
  entry.tiny = "{size: 3, activation: gelu}";
  entry.examples = {"{}", "{placement: pfeiffer, reduction: 16}",
                    "{size: 48, init: lora, activation: silu}",
                    "{placement: pfeiffer, random_drop_layers: 5}"};
  entry.make = [](const Options& options) { return std::make_unique<Adapter>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const AdapterOptions shared(options, "adapter");
    int64_t count = 0;
    for (const Site& site : sites) count += shared.count(site.out, site.out);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
