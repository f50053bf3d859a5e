// ProPETL: one prototype module for all layers, and a trained binary mask of it for each.
#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "methods/adapters.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace {

/// 1 for the `kept` largest scores, earlier ones first among equals; 0 for the others.
template <class T>
void fill_mask(const Tensor& scores, int64_t kept, const Tensor& mask) {
  const T* score = pointer<T>(scores);
  T* out = pointer<T>(mask);
  const int64_t count = scores.numel();
  std::vector<T> sorted(score, score + count);
  std::nth_element(sorted.begin(), sorted.begin() + (kept - 1), sorted.end(), std::greater<T>());
  const T bound = sorted[static_cast<size_t>(kept - 1)];
  int64_t above = 0;
  for (int64_t i = 0; i < count; ++i) above += score[i] > bound ? 1 : 0;
  int64_t equal = kept - above;
  for (int64_t i = 0; i < count; ++i) {
    const bool tie = score[i] == bound && equal > 0;
    equal -= tie ? 1 : 0;
    out[i] = score[i] > bound || tie ? T(1) : T(0);
  }
}

Tensor mask_of(const Tensor& scores, double sparsity) {
  const Tensor values = scores.detach().contiguous(), mask = at::empty_like(values);
  const int64_t kept = std::llround((1 - sparsity) * static_cast<double>(values.numel()));
  if (kept == 0) return mask.zero_();
  if (values.scalar_type() == at::kDouble)
    fill_mask<double>(values, kept, mask);
  else
    fill_mask<float>(values, kept, mask);
  return mask;
}

/// W o M with the mask M of the scores; the scores get the gradient of M as if it were theirs.
/// Reference: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons
/// for Conditional Computation", arXiv 1308.3432 (straight-through).
Tensor masked(const Tensor& prototype, const Tensor& scores, double sparsity) {
  const Tensor weight = prototype.detach(), mask = mask_of(scores, sparsity);
  const bool need_weight = wants_gradient(prototype), need_scores = wants_gradient(scores);
  return record(
      weight * mask, {prototype, scores}, "masked_prototype", [=](const Tensors& g) -> Tensors {
        return {need_weight ? g[0] * mask : Tensor(), need_scores ? g[0] * weight : Tensor()};
      });
}

/// What one site makes of its prototype: the named tensors of it, masked.
struct Layer {
  std::vector<std::pair<Tensor, Tensor>> masks;  // prototype, scores
  std::function<void(const std::vector<Tensor>& weights)> use;
};

class Propetl final : public Tuner {
 public:
  explicit Propetl(const Options& options)
      : shared_(options, "propetl"),
        form_(options.get<std::string>("form")),
        sites_(options.get<std::vector<std::string>>("sites")),
        sparsity_(options.get<double>("sparsity")),
        mask_rate_(options.get<double>("mask_lr_scale")) {
    if (form_ != "adapter" && options.node("scaling").text() == "learnable")
      fail(ErrorCode::BadInput,
           "{}: propetl: only form: adapter has a learnable scale; give a number",
           options.where("scaling"));
  }

  void attach(Attachment& attachment) override {
    for (const Site& site : chosen(attachment)) {
      if (form_ == "adapter")
        attach_adapter(attachment, site);
      else if (form_ == "lora")
        attach_lora(attachment, site);
      else
        attach_prefix(attachment, site);
    }
    prepare({});
  }

  void prepare(const Pass&) override {
    for (const Layer& layer : layers_) {
      std::vector<Tensor> weights;
      for (const std::pair<Tensor, Tensor>& mask : layer.masks)
        weights.push_back(masked(mask.first, mask.second, sparsity_));
      layer.use(weights);
    }
  }

  /// Two matrices and, in adapters, two biases once for each place in the block; two masks a site.
  static int64_t count(const std::vector<Site>& sites, const Options& options);
  /// "enc.ffn.out" of "enc.3.ffn.out": sites of one name share a prototype.
  static std::string place_in_block(const Site& site) {
    const std::string block = block_of(site);
    return block.substr(0, block.find('.') + 1) + site.name.substr(block.size());
  }
  /// Inner size at a site: of its width and the form.
  static int64_t size_at(const AdapterOptions& shared, const Site& site) {
    return shared.size_for(site.in, site.name);
  }

 private:
  struct Prototype {
    std::vector<Tensor> tensors;
    AdapterLayer frame;  // adapters: biases and what stands between the projections
    std::string first;   // the site it was made for
  };

  std::vector<Site> chosen(Attachment& attachment) const {
    if (form_ == "lora") {
      const bool own = sites_ != std::vector<std::string>{"auto"};
      return projections(attachment, own ? sites_ : std::vector<std::string>{"*.self.[qv]"},
                         "propetl");
    }
    const bool adapter = form_ == "adapter";
    return sites_of_kinds(attachment, sites_, adapter ? "*.ffn.out" : "*.kv",
                          {adapter ? SiteKind::Rows : SiteKind::KeyValue}, "propetl");
  }

  /// The prototype of a site's place in the block, made by the first site that asks.
  /// Errors: BadInput when that site has other sizes.
  Prototype& prototype_of(const Site& site, const std::vector<std::vector<int64_t>>& shapes,
                          const std::function<void(Prototype&, const Site& owner)>& make) {
    const std::string place = place_in_block(site);
    Prototype& found = prototypes_[place];
    if (found.tensors.empty()) {
      make(found, owner_of(place));
      found.first = site.name;
    }
    for (size_t i = 0; i < shapes.size(); ++i)
      if (found.tensors[i].sizes() != at::IntArrayRef(shapes[i]))
        fail(ErrorCode::BadInput,
             "propetl: {} and {} share one prototype but have other sizes; choose sites of one "
             "size, or give each group a propetl of its own",
             found.first, site.name);
    return found;
  }

  void mask_site(Attachment& attachment, const Site& site, const Prototype& prototype,
                 const std::vector<std::string>& names, Layer& layer) const {
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string name = names[i] + "_scores";
      const std::vector<int64_t> shape = prototype.tensors[i].sizes().vec();
      const Tensor scores = attachment.parameter(
          site, name, attachment.uniform(site, name, shape, kaiming_bound(shape[1])),
          Learn{mask_rate_, 0, {}});
      layer.masks.emplace_back(prototype.tensors[i], scores);
    }
  }

  /// Stands for the owner of a prototype's tensors: "shared/enc.ffn.out/down".
  static Site owner_of(const std::string& place) {
    Site owner = Site::shared();
    owner.name += "/" + place;
    return owner;
  }

  static Tensor matrix(Attachment& attachment, const Site& owner, const char* name, int64_t out,
                       int64_t in, AdapterInit init, bool up) {
    return attachment.parameter(owner, name,
                                adapter_weight(attachment, owner, name, out, in, init, up));
  }

  void attach_adapter(Attachment& attachment, const Site& site) {
    const int64_t d = site.out, size = size_at(shared_, site);
    Prototype& prototype =
        prototype_of(site, {{size, d}, {d, size}}, [&](Prototype& made, const Site& owner) {
          made.tensors = {matrix(attachment, owner, "down", size, d, shared_.init(), false),
                          matrix(attachment, owner, "up", d, size, shared_.init(), true)};
          made.frame = shared_.frame(attachment, owner, d, d);
          Bottleneck& weights = made.frame.weights;
          weights.down_bias =
              plain_parameter(attachment, owner, "down_bias", attachment.zeros({size}));
          weights.up_bias = plain_parameter(attachment, owner, "up_bias", attachment.zeros({d}));
        });
    frames_.push_back(prototype.frame);  // a deque: addresses stay
    AdapterLayer& frame = frames_.back();
    Layer layer;
    mask_site(attachment, site, prototype, {"down", "up"}, layer);
    layer.use = [&frame](const std::vector<Tensor>& weights) {
      frame.weights.down = weights[0];
      frame.weights.up = weights[1];
    };
    layers_.push_back(std::move(layer));
    attachment.add(site,
                   Apply{[&frame](const View& view) { return frame.run(view, view.x, view.x); },
                         {},
                         /*by_row=*/true});
  }

  void attach_lora(Attachment& attachment, const Site& site) {
    const int64_t size = size_at(shared_, site);
    check_rank("propetl", size, site);
    const Prototype& prototype = prototype_of(
        site, {{size, site.in}, {site.out, size}}, [&](Prototype& made, const Site& owner) {
          made.tensors = {
              matrix(attachment, owner, "down", size, site.in, AdapterInit::Lora, false),
              matrix(attachment, owner, "up", site.out, size, AdapterInit::Lora, true)};
        });
    Layer layer;
    mask_site(attachment, site, prototype, {"down", "up"}, layer);
    LowRank edit{attachment.zeros({size, site.in}), attachment.zeros({site.out, size}),
                 shared_.scaling(), shared_.dropout()};
    layer.use = [added = &attachment.add(site, edit)](const std::vector<Tensor>& weights) {
      LowRank& low = std::get<LowRank>(*added);
      low.down = weights[0];
      low.up = weights[1];
    };
    layers_.push_back(std::move(layer));
  }

  void attach_prefix(Attachment& attachment, const Site& site) {
    const int64_t size = size_at(shared_, site);
    const std::vector<int64_t> shape{size, site.in};
    const Prototype& prototype =
        prototype_of(site, {shape, shape}, [&](Prototype& made, const Site& owner) {
          for (const char* name : {"keys", "values"})
            made.tensors.push_back(
                matrix(attachment, owner, name, size, site.in, AdapterInit::Bert, false));
        });
    Layer layer;
    mask_site(attachment, site, prototype, {"keys", "values"}, layer);
    Extend edit;
    edit.shift = false;  // a prefix has no positions: the text counts from 0
    edit.keys = edit.values = attachment.zeros(shape);
    layer.use = [added = &attachment.add(site, edit)](const std::vector<Tensor>& weights) {
      Extend& extend = std::get<Extend>(*added);
      extend.keys = weights[0];
      extend.values = weights[1];
    };
    layers_.push_back(std::move(layer));
  }

  AdapterOptions shared_;
  std::string form_;
  std::vector<std::string> sites_;
  double sparsity_, mask_rate_;
  std::map<std::string, Prototype> prototypes_;
  std::vector<Layer> layers_;
  std::deque<AdapterLayer> frames_;
};

int64_t Propetl::count(const std::vector<Site>& sites, const Options& options) {
  const AdapterOptions shared(options, "propetl");
  const std::string form = options.get<std::string>("form");
  std::map<std::string, int64_t> prototypes;
  int64_t count = 0;
  for (const Site& site : sites) {
    const int64_t size = size_at(shared, site);
    const int64_t masks = form == "prefix" ? 2 * size * site.in : size * (site.in + site.out);
    int64_t& prototype = prototypes[place_in_block(site)];
    count += masks;
    prototype = masks;
    if (form == "adapter") prototype += size + site.out + shared.count_frame(site.in, site.out);
  }
  for (const std::pair<const std::string, int64_t>& entry : prototypes) count += entry.second;
  return count;
}

std::vector<Option> options_of_propetl() {
  std::vector<Option> options = {
      {"form", "choice", "adapter", "adapter|lora|prefix", "what the prototype is"},
      {"sites", "globs", "auto", "",
       "where it acts (globs over site names); auto: *.ffn.out, *.self.[qv] or *.kv, as form says"},
      {"sparsity", "number", "0.5", "[0, 1)", "share of the prototype's weights a mask takes out"},
      {"mask_lr_scale", "number", "30", "(0, inf)",
       "learning rate of the masks' scores over that of the prototype"},
  };
  for (Option& option : adapter_options({"12", "relu", "bert", "1"})) {
    const bool all = option.name == "size" || option.name == "reduction";
    const bool lora = option.name == "scaling" || option.name == "dropout";
    if (!all) option.help += lora ? " (adapter, lora)" : " (adapter)";
    options.push_back(std::move(option));
  }
  return options;
}

}  // namespace

void register_propetl(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "propetl";
  entry.summary = "one prototype adapter for all layers, of which each layer uses a trained mask";
  entry.reference =
      "Zeng et al. 2023, \"One Network, Many Masks: Towards More Parameter-Efficient Transfer "
      "Learning\", arXiv 2305.17682";
  entry.options = options_of_propetl();
  entry.learning_rate = 3e-3;
  entry.identity_at_start = false;  // near it: N(0, 0.02^2), as published
  entry.tiny = "{size: 3, activation: gelu, mask_lr_scale: 3}";
  entry.examples = {"{}", "{sparsity: 0.5, reduction: 12}",
                    "{form: lora, size: 32, sites: \"*.self.[qv]\"}", "{form: prefix, size: 64}"};
  entry.make = [](const Options& options) { return std::make_unique<Propetl>(options); };
  entry.count = &Propetl::count;
  registry.add(std::move(entry));
}

}  // namespace attune
