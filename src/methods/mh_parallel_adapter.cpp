// Multi-head parallel adapters: each attention head gets an adapter that reads the head's query.
#include <cmath>
#include <deque>

#include "base/error.h"
#include "methods/adapters.h"
#include "methods/batched.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Head i of the output: z_i + scale * f(q_i down_i^T) up_i with q_i = W_q,i x + b_q,i unscaled:
/// prefix tuning with f for the softmax and plain addition for the gate.
/// Differs: the queries are those of the checkpoint even where another method changes W_q.
class MhParallelAdapter final : public Tuner {
 public:
  explicit MhParallelAdapter(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        size_(options.get<int64_t>("size")),
        activation_(activation_named(options.get<std::string>("activation"))),
        scale_(options.get<double>("scaling")),
        norm_(options.get<bool>("layer_norm")),
        dropout_(options.get<double>("dropout")) {}

  void attach(Attachment& attachment) override {
    for (const Site& site :
         sites_of_kinds(attachment, sites_, "", {SiteKind::Heads}, "mh_parallel_adapter"))
      attach_to(attachment, site);
    prepare({});
  }

  /// The adapters of all heads as one: the queries' projection goes into `down`, and `up` is
  /// block-diagonal. Cost: size * width * width / heads multiply-adds a head, once a pass.
  void prepare(const Pass&) override {
    for (Place& place : places_) {
      const int64_t h = place.down.size(0), r = place.down.size(1), width = place.up.size(2);
      const Tensor down = batched_matmul(place.down, place.query);  // [h, r, d + 1]
      const Tensor all = down.reshape({h * r, -1});
      place.layer.weights.down = all.narrow(1, 0, all.size(1) - 1);
      if (place.bias) place.layer.weights.down_bias = all.select(1, all.size(1) - 1);
      // [h, width, h, r] with the blocks on the diagonal of the two h.
      const Tensor diagonal = at::eye(h, place.up.options()).reshape({h, 1, h, 1});
      const Tensor blocks = place.up.transpose(1, 2).unsqueeze(2) * diagonal;
      place.layer.weights.up = blocks.reshape({h * width, h * r});
    }
  }

 private:
  struct Place {
    Tensor down, up;  // trained: [h, r, d_h] each
    Tensor query;     // frozen: [h, d_h, d + 1], the bias as last column
    bool bias = false;
    AdapterLayer layer;
  };

  static const Site& partner(Attachment& attachment, const Site& site, const char* name,
                             SiteKind kind) {
    const Site* found = find_site(attachment.all_sites(), part_of(site) + name);
    if (found == nullptr || found->kind != kind)
      fail(ErrorCode::BadInput,
           "mh_parallel_adapter: {} has no {}{} beside it, from which its heads read; choose "
           "attentions with separate query projections",
           site.name, part_of(site), name);
    return *found;
  }

  void attach_to(Attachment& attachment, const Site& site) {
    const Site &input = partner(attachment, site, "in", SiteKind::Rows),
               &query = partner(attachment, site, "q", SiteKind::Weight);
    const int64_t h = site.heads, width = site.out / h, d = query.in;
    places_.emplace_back();
    Place& place = places_.back();  // a deque: addresses stay
    place.bias = query.bias;
    const Tensor bias = query.bias ? attachment.bias(query) : attachment.zeros({query.out});
    place.query = at::cat({attachment.weight(query), bias.unsqueeze(1)}, 1)
                      .detach()
                      .reshape({h, width, d + 1});
    const std::vector<int64_t> shape{h, size_, width};
    place.down = attachment.parameter(
        site, "down", attachment.uniform(site, "down", shape, kaiming_bound(width)));
    place.up = attachment.parameter(site, "up", attachment.zeros(shape));
    place.layer.weights.activation = activation_;
    place.layer.weights.scale = scale_;
    place.layer.dropout = dropout_;
    if (norm_) {
      place.layer.norm = AdapterLayer::Norm::In;
      place.layer.norm_weight =
          plain_parameter(attachment, input, "norm_weight", attachment.ones({d}));
      place.layer.norm_bias =
          plain_parameter(attachment, input, "norm_bias", attachment.zeros({d}));
    }
    const auto run = [&place, read = input.name](const View& view) {
      const Tensor heads = view.x.reshape({view.x.size(0), -1});
      return place.layer.run(view, view.reads.at(read), heads).reshape(view.x.sizes());
    };
    attachment.add(site, Apply{run, {input.name}, /*by_row=*/true});
  }

  std::vector<std::string> sites_;
  int64_t size_;
  kernels::Activation activation_;
  double scale_;
  bool norm_;
  double dropout_;
  std::deque<Place> places_;
};

}  // namespace

void register_mh_parallel_adapter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "mh_parallel_adapter";
  entry.summary =
      "an adapter in every attention head, from the head's query to its output before o";
  entry.reference =
      "He et al. 2022, \"Towards a Unified View of Parameter-Efficient Transfer Learning\", arXiv "
      "2110.04366, sections 3.1 and 4.4 (multi-head parallel adapter)";
  entry.options = {
      {"sites", "globs", "\"*.self.heads\"", "",
       "attentions that get adapters (globs over site names)"},
      {"size", "int", "16", "[1, inf)", "inner size of each head's adapter"},
      {"activation", "choice", "relu", kActivationNames, "between the projections"},
      {"scaling", "number", "1", "(0, inf)", "factor on what the adapters add"},
      {"layer_norm", "bool", "false", "",
       "a trained norm on the attention's input, for the adapters"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the inner rows"},
  };
  entry.learning_rate = 3e-3;
  entry.tiny = "{size: 3, activation: gelu}";
  entry.examples = {"{}", "{size: 30, layer_norm: true}", "{size: 8, scaling: 4}"};
  entry.make = [](const Options& options) { return std::make_unique<MhParallelAdapter>(options); };
  // 2 l d as prefix tuning of l rows: per head two [l, d_h]; a norm of the input 2 d.
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites)
      count +=
          site.kind == SiteKind::Heads ? 2 * options.get<int64_t>("size") * site.out : 2 * site.out;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
