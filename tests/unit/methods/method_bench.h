#pragma once
// A list of sites with random weights and an Attachment over it: what a method declares can be
// looked at, folded and differentiated without a model. Everything is double precision.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/options.h"
#include "base/random.h"
#include "base/text.h"
#include "core/tuner.h"
#include "methods/registry.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

class MethodBench final : public Attachment {
 public:
  // The sites.
  void projection(const std::string& name, int64_t out, int64_t in, bool bias = true) {
    add_site(name, SiteKind::Weight, WeightKind::Projection, in, out, bias);
    weights_[name] = draw(name + "/weight", {out, in});
    if (bias) biases_[name] = draw(name + "/bias", {out});
  }
  void table(const std::string& name, int64_t vocabulary, int64_t width) {
    add_site(name, SiteKind::Weight, WeightKind::Table, vocabulary, width, false);
    weights_[name] = draw(name + "/weight", {vocabulary, width});
  }
  void norm(const std::string& name, int64_t width) {
    add_site(name, SiteKind::Weight, WeightKind::Norm, width, width, true);
    weights_[name] = draw(name + "/weight", {width}) + 1.0;
    biases_[name] = draw(name + "/bias", {width});
  }
  /// A Rows, Heads, Scores, KeyValue or Part site.
  void flow(const std::string& name, SiteKind kind, int64_t width, int64_t heads = 1) {
    Site& site = add_site(name, kind, WeightKind::None, width, width, false);
    site.heads = heads;
  }
  /// Two blocks of an encoder: q, k, v, o [d, d] and up [f, d], down [d, f], with rows between.
  static std::unique_ptr<MethodBench> encoder(int64_t d = 6, int64_t f = 8) {
    std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
    bench->table("enc.embed.tok", 11, d);
    for (const std::string block : {"enc.0.", "enc.1."}) {
      for (const char* part : {"self.q", "self.k", "self.v", "self.o"})
        bench->projection(block + part, d, d);
      bench->norm(block + "self.norm", d);
      bench->projection(block + "ffn.up", f, d);
      bench->projection(block + "ffn.down", d, f);
      bench->flow(block + "resid.out", SiteKind::Rows, d);
    }
    return bench;
  }

  /// Makes the method from its JSON options and attaches it.
  Tuner& attach(const std::string& method, const Json& options = Json::object()) {
    const Entry<Tuner>& entry = registry_.at(method);
    options_ = Options(entry.options, Node::from_json(options, {"test", 0, 0}), "test");
    tuner_ = entry.make(options_);
    tuner_->attach(*this);
    tuner_->prepare({});
    return *tuner_;
  }
  /// Text of the BadInput error that attaching ends with; fails the test when there is none.
  static std::string error_of(const std::string& method, const Json& options) {
    const std::unique_ptr<MethodBench> bench = encoder();
    try {
      bench->attach(method, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::BadInput) << error.what();
      return error.what();
    }
    ADD_FAILURE() << method << " accepted " << options.dump();
    return "";
  }
  Tuner& tuner() { return *tuner_; }
  /// The registry entry's parameter formula over the sites that got edits, or all sites of `names`.
  int64_t formula(const std::string& method, const std::vector<std::string>& names) const {
    std::vector<Site> sites;
    for (const std::string& name : names) sites.push_back(site(name));
    return registry_.at(method).count(sites, options_);
  }
  int64_t trained() const {
    int64_t count = 0;
    for (const std::pair<const std::string, Tensor>& entry : parameters)
      count += entry.second.numel();
    return count;
  }
  const Site& site(const std::string& name) const {
    const Site* found = find_site(sites_, name);
    EXPECT_NE(found, nullptr) << name;
    return *found;
  }
  std::vector<const Edit*> edits_at(const std::string& name) const {
    std::vector<const Edit*> result;
    for (const std::pair<std::string, Edit>& entry : edits)
      if (entry.first == name) result.push_back(&entry.second);
    return result;
  }
  /// The affine map of a weight with every edit folded in, after prepare().
  Affine folded(const std::string& name, const Pass& pass = {}) {
    tuner_->prepare(pass);
    Affine map{weights_.at(name), biases_.count(name) > 0 ? biases_.at(name) : Tensor()};
    for (const Edit* edit : edits_at(name)) map = fold(map, *edit, site(name).weight);
    return map;
  }
  void set_base(const std::string& name, const Tensor& weight) { weights_.at(name) = weight; }
  Tensor weight_of(const std::string& name) const { return weights_.at(name); }
  Tensor parameter_of(const std::string& name) const {
    EXPECT_GT(parameters.count(name), 0u) << name;
    return parameters.at(name);
  }
  /// Gives every parameter (or one) new random values.
  void disturb(double deviation = 0.5) {
    at::NoGradGuard no_grad;
    for (std::pair<const std::string, Tensor>& entry : parameters) {
      entry.second.copy_(draw("disturb/" + entry.first, entry.second.sizes().vec()) * deviation);
      mark_changed(entry.second);
    }
  }
  void set(const std::string& name, const Tensor& value) {
    at::NoGradGuard no_grad;
    parameters.at(name).copy_(value);
    mark_changed(parameters.at(name));
  }
  static Tensor draw(const std::string& name, const std::vector<int64_t>& shape) {
    const Stream64 stream = Stream64(11, "bench").with(name);
    Tensor values = at::empty(shape, at::kDouble);
    double* out = static_cast<double*>(values.data_ptr());
    for (int64_t i = 0; i < values.numel(); ++i) out[i] = stream.normal(static_cast<uint64_t>(i));
    return values;
  }

  // Attachment.
  std::vector<Site> sites(std::string_view glob) const override {
    return select_sites(sites_, glob);
  }
  const std::vector<Site>& all_sites() const override { return sites_; }
  Tensor weight(const Site& site) const override { return weights_.at(site.name); }
  Tensor bias(const Site& site) const override {
    return biases_.count(site.name) > 0 ? biases_.at(site.name) : Tensor();
  }
  bool fresh(const Site&) const override { return false; }
  Tensor parameter(const Site& site, std::string_view name, const Tensor& init,
                   Learn learn) override {
    const std::string key = site.name + "/" + std::string(name);
    EXPECT_EQ(parameters.count(key), 0u) << key << " is declared twice";
    learns[key] = std::move(learn);
    return parameters[key] = as_leaf(init.detach().to(at::kDouble).clone().contiguous());
  }
  Tensor buffer(const Site& site, std::string_view name, const Tensor& init) override {
    return buffers[site.name + "/" + std::string(name)] = init.detach().clone().contiguous();
  }
  Tensor state(const Site& site, std::string_view name, const Tensor& init) override {
    return states[site.name + "/" + std::string(name)] = init.detach().clone().contiguous();
  }
  Edit& add(const Site& site, Edit edit) override {
    EXPECT_TRUE(admits(site, edit)) << verb_name(edit) << " at " << site.name;
    edits.emplace_back(site.name, std::move(edit));
    return edits.back().second;
  }
  std::vector<std::vector<Site>> route(const Site& part, Route edit) override {
    add(part, std::move(edit));
    return {};
  }
  void thaw(const Site& site, Learn learn, Part part) override {
    const bool whole = part != Part::Bias && weights_.count(site.name) > 0;
    if (whole) parameter(site, "weight", weights_.at(site.name), learn);
    if (part != Part::Weight && biases_.count(site.name) > 0)
      parameter(site, "bias", biases_.at(site.name), learn);
  }
  Tensor normal(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                double deviation) const override {
    return draw("normal/" + site.name + "/" + std::string(name), shape) * deviation;
  }
  Tensor uniform(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                 double bound) const override {
    const Stream64 stream = Stream64(11, "uniform").with(site.name).with(std::string_view(name));
    Tensor values = at::empty(shape, at::kDouble);
    double* out = static_cast<double*>(values.data_ptr());
    for (int64_t i = 0; i < values.numel(); ++i)
      out[i] = (2 * stream.uniform(static_cast<uint64_t>(i)) - 1) * bound;
    return values;
  }
  std::vector<int32_t> encode(const std::string& text) const override {
    std::vector<int32_t> ids;  // one token a letter
    for (const char letter : text) ids.push_back(letter % 11);
    return ids;
  }
  const Json& config() const override { return config_; }
  uint64_t stream(std::string_view name) const override {
    return Stream64(11, "stream").with(name).key();
  }
  Tensor zeros(const std::vector<int64_t>& shape) const override {
    return at::zeros(shape, at::kDouble);
  }
  Tensor ones(const std::vector<int64_t>& shape) const override {
    return at::ones(shape, at::kDouble);
  }

  std::map<std::string, Tensor> parameters, buffers, states;  // "enc.0.self.q/down"
  std::map<std::string, Learn> learns;
  std::deque<std::pair<std::string, Edit>> edits;

 private:
  Json config_ = Json::object();
  Site& add_site(const std::string& name, SiteKind kind, WeightKind weight, int64_t in, int64_t out,
                 bool bias) {
    Site site;
    site.name = name;
    site.kind = kind;
    site.weight = weight;
    site.in = in;
    site.out = out;
    site.bias = bias;
    site.id = static_cast<int>(sites_.size());
    site.storage = kind == SiteKind::Weight ? site.id : -1;
    const std::vector<std::string> parts = split(name, '.');
    if (parts.size() > 2 && parts[1].find_first_not_of("0123456789") == std::string::npos)
      site.layer = std::stoi(parts[1]);
    sites_.push_back(site);
    return sites_.back();
  }

  Registry<Tuner> registry_ = methods();
  Options options_;
  std::unique_ptr<Tuner> tuner_;
  std::vector<Site> sites_;
  std::map<std::string, Tensor> weights_, biases_;
};

/// Element (i, j) of a double matrix.
inline double at2(const Tensor& x, int64_t i, int64_t j) {
  return x.detach().to(at::kDouble).index({i, j}).item<double>();
}
inline double at1(const Tensor& x, int64_t i) {
  return x.detach().to(at::kDouble).index({i}).item<double>();
}
/// a b as a triple loop.
inline Tensor naive_product(const Tensor& a, const Tensor& b) {
  const Tensor left = a.detach().to(at::kDouble).contiguous(),
               right = b.detach().to(at::kDouble).contiguous();
  const int64_t m = left.size(0), k = left.size(1), n = right.size(1);
  Tensor result = at::zeros({m, n}, at::kDouble);
  const double *pa = static_cast<double*>(left.data_ptr()),
               *pb = static_cast<double*>(right.data_ptr());
  double* out = static_cast<double*>(result.data_ptr());
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l) out[i * n + j] += pa[i * k + l] * pb[l * n + j];
  return result;
}
/// max |a - b|; fails on different shapes.
inline double difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  if (a.sizes() != b.sizes()) return 1e30;
  if (a.numel() == 0) return 0;
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}
/// Asserts that the gradient of `loss()` by the leaf is that of central differences, everywhere.
template <class F>
void expect_gradient(Tensor leaf, const F& loss, double tolerance = 1e-6) {
  leaf.mutable_grad() = Tensor();
  backward(loss());
  ASSERT_TRUE(leaf.grad().defined());
  const Tensor gradient = leaf.grad().clone();
  at::NoGradGuard no_grad;
  double* value = static_cast<double*>(leaf.data_ptr());
  const double* g = static_cast<const double*>(gradient.contiguous().data_ptr());
  const double step = 1e-6;
  for (int64_t i = 0; i < leaf.numel(); ++i) {
    const double before = value[i];
    value[i] = before + step;
    mark_changed(leaf);
    const double up = loss().template item<double>();
    value[i] = before - step;
    mark_changed(leaf);
    const double down = loss().template item<double>();
    value[i] = before;
    mark_changed(leaf);
    const double expected = (up - down) / (2 * step);
    EXPECT_NEAR(g[i], expected, tolerance * (1 + std::abs(expected))) << "element " << i;
  }
}

}  // namespace attune
