// Compacter: adapters whose projections are sums of Kronecker products with shared small factors.
#include <algorithm>
#include <cmath>
#include <deque>

#include "base/error.h"
#include "methods/adapters.h"
#include "methods/batched.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// W = sum_i rule_i (x) block_i.
/// Shapes: rule [n, n, n], blocks [n, p, q]; result [n p, n q].
/// Reference: Zhang et al. 2021, "Beyond Fully-Connected Layers with Quaternions", arXiv
/// 2102.08597.
Tensor sum_of_products(const Tensor& rule, const Tensor& blocks) {
  const int64_t n = rule.size(0), p = blocks.size(1), q = blocks.size(2);
  const Tensor flat =
      attune::matmul(rule.reshape({n, n * n}), blocks.reshape({n, p * q}), /*transpose_a=*/true);
  return flat.reshape({n, n, p, q}).permute({0, 2, 1, 3}).reshape({n * p, n * q});
}

/// One projection [out, in]: the rule, and the blocks whole or as products of two thin factors.
struct Phm {
  Tensor rule, left, right;  // left [n, out / n, rank], or whole blocks with right undefined
  Tensor weight() const {
    return sum_of_products(rule, right.defined() ? batched_matmul(left, right) : left);
  }
};

class Compacter final : public Tuner {
 public:
  explicit Compacter(const Options& options)
      : shared_(options, "compacter", false),
        sites_(options.get<std::vector<std::string>>("sites")),
        divisions_(options.get<int64_t>("divisions")),
        rank_(options.get<int64_t>("rank")),
        share_(options.get<bool>("share_rule")),
        deviation_(options.get<double>("rule_std")) {}

  void attach(Attachment& attachment) override {
    if (share_) rule_ = new_rule(attachment, Site::shared(), "rule");
    for (const Site& site : sites_of_kinds(attachment, sites_, "", {SiteKind::Rows}, "compacter"))
      attach_to(attachment, site);
    prepare({});
  }

  void prepare(const Pass&) override {
    for (Place& place : places_) {
      place.layer.weights.down = place.down.weight();
      place.layer.weights.up = place.up.weight();
    }
  }

  /// n^3 for each rule; a factorised projection r (in + out), a whole one in out / n; biases.
  static int64_t count(const std::vector<Site>& sites, const Options& options) {
    const AdapterOptions shared(options, "compacter", false);
    const int64_t n = options.get<int64_t>("divisions"), rank = options.get<int64_t>("rank");
    const bool share = options.get<bool>("share_rule");
    int64_t count = share ? n * n * n : 0;
    for (const Site& site : sites) {
      const int64_t d = site.out, k = shared.size_for(d, site.name);
      count += 2 * (rank > 0 ? rank * (k + d) : k * d / n) + k + d + shared.count_frame(d, d);
      if (!share) count += 2 * n * n * n;
    }
    return count;
  }

 private:
  struct Place {
    AdapterLayer layer;
    Phm down, up;
  };

  void check(const Site& site, int64_t size) const {
    const int64_t d = site.out;
    if (d % divisions_ != 0 || size % divisions_ != 0)
      fail(ErrorCode::BadInput,
           "compacter: divisions {} at {} must divide the {} features of the rows and the inner "
           "size {}; choose another size, or divisions that divide both",
           divisions_, site.name, d, size);
    const int64_t most = std::min(d, size) / divisions_;
    if (rank_ > most)
      fail(ErrorCode::BadInput,
           "compacter: rank {} at {} is larger than the blocks [{}, {}]; give a rank of at most "
           "{}, or 0 for blocks that are not factorised",
           rank_, site.name, size / divisions_, d / divisions_, most);
  }

  Tensor new_rule(Attachment& attachment, const Site& owner, const char* name) const {
    const std::vector<int64_t> shape{divisions_, divisions_, divisions_};
    return attachment.parameter(owner, name, attachment.normal(owner, name, shape, deviation_));
  }

  /// Glorot-uniform with gain sqrt(2), each block on its own.
  Tensor blocks(Attachment& attachment, const Site& site, const std::string& name, int64_t rows,
                int64_t columns) const {
    const double bound = std::sqrt(2.0) * std::sqrt(6.0 / static_cast<double>(rows + columns));
    return attachment.parameter(site, name,
                                attachment.uniform(site, name, {divisions_, rows, columns}, bound));
  }

  Phm projection(Attachment& attachment, const Site& site, const std::string& name, int64_t out,
                 int64_t in) const {
    Phm phm;
    phm.rule = share_ ? rule_ : new_rule(attachment, site, (name + "_rule").c_str());
    const int64_t p = out / divisions_, q = in / divisions_;
    if (rank_ == 0) {
      phm.left = blocks(attachment, site, name, p, q);
    } else {
      phm.left = blocks(attachment, site, name + "_left", p, rank_);
      phm.right = blocks(attachment, site, name + "_right", rank_, q);
    }
    return phm;
  }

  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t d = site.out, size = shared_.size_for(d, site.name);
    check(site, size);
    places_.emplace_back();
    Place& place = places_.back();  // a deque: addresses stay
    place.layer = shared_.frame(attachment, site, d, d);
    place.down = projection(attachment, site, "down", size, d);
    place.up = projection(attachment, site, "up", d, size);
    Bottleneck& weights = place.layer.weights;
    weights.down_bias = plain_parameter(attachment, site, "down_bias", attachment.zeros({size}));
    weights.up_bias = plain_parameter(attachment, site, "up_bias", attachment.zeros({d}));
    attachment.add(
        site, Apply{[&place](const View& view) { return place.layer.run(view, view.x, view.x); },
                    {},
                    /*by_row=*/true});
  }

  AdapterOptions shared_;
  std::vector<std::string> sites_;
  int64_t divisions_, rank_;
  bool share_;
  double deviation_;
  Tensor rule_;
  std::deque<Place> places_;
};

std::vector<Option> options_of_compacter() {
  std::vector<Option> options = {
      {"sites", "globs", "\"*.{self,cross,ffn}.out\"", "",
       "rows that get an adapter (globs over site names); *.ffn.out: Compacter++"},
      {"divisions", "int", "4", "[1, inf)",
       "n: each projection is a sum of n Kronecker products of [n, n] rules and blocks"},
      {"rank", "int", "1", "[0, inf)", "rank of the blocks; 0: blocks that are not factorised"},
      {"share_rule", "bool", "true", "",
       "one set of rules for every projection of every layer, instead of one each"},
      {"rule_std", "number", "0.01", "(0, inf)", "standard deviation of the rules at the start"},
  };
  for (Option& option : adapter_options({"32", "gelu", nullptr, "1"}))
    options.push_back(std::move(option));
  return options;
}

}  // namespace

void register_compacter(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "compacter";
  entry.summary =
      "adapters behind sub-layers whose weights are sums of Kronecker products of shared rules and "
      "low-rank blocks";
  entry.reference =
      "Mahabadi et al. 2021, \"Compacter: Efficient Low-Rank Hypercomplex Adapter Layers\", arXiv "
      "2106.04647";
  entry.options = options_of_compacter();
  entry.learning_rate = 3e-3;
  entry.identity_at_start = false;  // near it: the rules are small, not zero
  entry.tiny = "{divisions: 2, size: 4, rule_std: 0.1}";
  entry.examples = {"{}", "{sites: \"*.ffn.out\", reduction: 32}",
                    "{divisions: 2, rank: 0, share_rule: false, reduction: 8}"};
  entry.make = [](const Options& options) { return std::make_unique<Compacter>(options); };
  entry.count = &Compacter::count;
  registry.add(std::move(entry));
}

}  // namespace attune
