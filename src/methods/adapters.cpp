#include "methods/adapters.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "methods/common.h"
#include "tensor/torch.h"

namespace attune {

std::vector<Option> adapter_options(const AdapterDefaults& defaults) {
  std::vector<Option> options = {
      {"size", "int", "auto", "[1, inf)", "inner size; auto: the rows' width / reduction"},
      {"reduction", "number", defaults.reduction, "[1, inf)",
       "the rows' width / inner size, where size is auto"},
      {"activation", "choice", defaults.activation, kActivationNames, "between the projections"},
      {"scaling", "any", defaults.scaling, "",
       "factor on what the adapter adds: a number, or learnable (a trained factor from 1)"},
      {"layer_norm", "choice", "none", "none|in|out",
       "a trained norm inside the adapter, before its first projection (in) or behind its second "
       "(out)"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the inner rows"},
  };
  if (defaults.init != nullptr)
    options.push_back(
        {"init", "choice", defaults.init, "bert|lora|zero",
         "initial values. bert: N(0, 0.02^2), near the identity; lora: Kaiming-uniform down, zero "
         "up, exactly the identity; zero: both zero, so that only the last bias can learn (as one "
         "published implementation does)"});
  return options;
}

namespace {

AdapterInit init_named(const std::string& name) {
  if (name == "lora") return AdapterInit::Lora;
  return name == "zero" ? AdapterInit::Zero : AdapterInit::Bert;
}

AdapterLayer::Norm norm_named(const std::string& name) {
  if (name == "in") return AdapterLayer::Norm::In;
  return name == "out" ? AdapterLayer::Norm::Out : AdapterLayer::Norm::None;
}

constexpr double kNormEps = 1e-5;

}  // namespace

Tensor AdapterLayer::run(const View& view, const Tensor& x, const Tensor& base) const {
  const DropSite drop = drop_of(view, dropout);
  if (norm == Norm::None) return bottleneck(x, base, weights, drop);
  if (norm == Norm::In)
    return bottleneck(layer_norm(x, Tensor(), norm_weight, norm_bias, kNormEps), base, weights,
                      drop);
  const Tensor added = layer_norm(bottleneck(x, Tensor(), weights, drop), Tensor(), norm_weight,
                                  norm_bias, kNormEps);
  return base.defined() ? base + added : added;
}

AdapterOptions::AdapterOptions(const Options& options, const char* method, bool has_init)
    : method_(method),
      reduction_(options.get<double>("reduction")),
      dropout_(options.get<double>("dropout")),
      activation_(activation_named(options.get<std::string>("activation"))),
      init_(has_init ? init_named(options.get<std::string>("init")) : AdapterInit::Bert),
      norm_(norm_named(options.get<std::string>("layer_norm"))) {
  if (options.node("size").text() != "auto") size_ = options.get<int64_t>("size");
  const Node scaling = options.get<Node>("scaling");
  learnable_ = scaling.is_scalar() && scaling.text() == "learnable";
  if (learnable_) return;
  const Json value = scaling.is_scalar() ? scaling.to_json() : Json();
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() == 0)
    fail(ErrorCode::BadInput,
         "{}: expected a number other than 0, or learnable, found {}; the published values are 1, "
         "2 and 4",
         options.where("scaling"), scaling.shown());
  scaling_ = value.get<double>();
}

int64_t AdapterOptions::size_for(int64_t width, const std::string& site) const {
  if (size_) return *size_;
  const int64_t size = static_cast<int64_t>(static_cast<double>(width) / reduction_);
  if (size < 1)
    fail(ErrorCode::BadInput,
         "{}: reduction {} leaves no inner feature of the {} at {}; give a reduction of at most "
         "{}, or the inner size itself (size)",
         method_, reduction_, width, site, width);
  return size;
}

Tensor adapter_weight(Attachment& attachment, const Site& owner, const char* name, int64_t out,
                      int64_t in, AdapterInit init, bool up) {
  if (init == AdapterInit::Zero || (init == AdapterInit::Lora && up))
    return attachment.zeros({out, in});
  if (init == AdapterInit::Lora)
    return attachment.uniform(owner, name, {out, in}, kaiming_bound(in));
  return attachment.normal(owner, name, {out, in}, 0.02);
}

Tensor plain_parameter(Attachment& attachment, const Site& owner, const char* name,
                       const Tensor& init) {
  return attachment.parameter(owner, name, init, Learn{1, 0, {}});
}

AdapterLayer AdapterOptions::frame(Attachment& attachment, const Site& owner, int64_t in,
                                   int64_t out) const {
  AdapterLayer layer;
  layer.weights.activation = activation_;
  layer.weights.scale = scaling_;
  if (learnable_)
    layer.weights.gain = plain_parameter(attachment, owner, "scale", attachment.ones({1}));
  layer.norm = norm_;
  layer.dropout = dropout_;
  if (norm_ == AdapterLayer::Norm::None) return layer;
  const int64_t width = norm_ == AdapterLayer::Norm::In ? in : out;
  layer.norm_weight = plain_parameter(attachment, owner, "norm_weight", attachment.ones({width}));
  layer.norm_bias = plain_parameter(attachment, owner, "norm_bias", attachment.zeros({width}));
  return layer;
}

AdapterLayer AdapterOptions::make(Attachment& attachment, const Site& owner, int64_t in,
                                  int64_t out) const {
  const int64_t size = size_for(in, owner.name);
  AdapterLayer layer = frame(attachment, owner, in, out);
  layer.weights.down = attachment.parameter(
      owner, "down", adapter_weight(attachment, owner, "down", size, in, init_, false));
  layer.weights.down_bias =
      plain_parameter(attachment, owner, "down_bias", attachment.zeros({size}));
  layer.weights.up = attachment.parameter(
      owner, "up", adapter_weight(attachment, owner, "up", out, size, init_, true));
  layer.weights.up_bias = plain_parameter(attachment, owner, "up_bias", attachment.zeros({out}));
  return layer;
}

int64_t AdapterOptions::count(int64_t in, int64_t out) const {
  const int64_t size = size_for(in, method_);
  return size * in + size + out * size + out + count_frame(in, out);
}

int64_t AdapterOptions::count_frame(int64_t in, int64_t out) const {
  const int64_t gain = learnable_ ? 1 : 0;
  if (norm_ == AdapterLayer::Norm::None) return gain;
  return gain + 2 * (norm_ == AdapterLayer::Norm::In ? in : out);
}

std::string part_of(const Site& site) {
  return site.name.substr(0, site.name.rfind('.') + 1);
}

namespace {

[[noreturn]] void no_flow(Attachment& attachment, const std::string& glob, const std::string& found,
                          const std::vector<SiteKind>& kinds, const char* method) {
  std::vector<std::string> names, words;
  for (const SiteKind kind : kinds) words.push_back(kind_name(kind));
  for (const Site& site : attachment.all_sites())
    if (!site.hidden && std::count(kinds.begin(), kinds.end(), site.kind) > 0)
      names.push_back(site.name);
  fail(ErrorCode::BadInput,
       "{}: the site pattern \"{}\" matches {}, but no site of kind {}; this method acts on those, "
       "the nearest of this model are {}",
       method, glob, found, join(words, " or "), join(nearest(glob, names, 5), ", "));
}

}  // namespace

std::vector<Site> sites_of_kinds(Attachment& attachment, const std::vector<std::string>& globs,
                                 const char* fallback, const std::vector<SiteKind>& kinds,
                                 const char* method) {
  std::vector<Site> result;
  for (const std::string& given : globs) {
    const std::string glob = globs.size() == 1 && given == "auto" ? fallback : given;
    const std::vector<Site> matched = attachment.sites(glob);
    size_t found = 0;
    for (const Site& site : matched) {
      if (std::count(kinds.begin(), kinds.end(), site.kind) == 0) continue;
      ++found;
      const bool seen = std::any_of(result.begin(), result.end(),
                                    [&](const Site& other) { return other.id == site.id; });
      if (!seen) result.push_back(site);
    }
    if (found == 0) no_flow(attachment, glob, matched.front().name, kinds, method);
  }
  std::sort(result.begin(), result.end(), [](const Site& a, const Site& b) { return a.id < b.id; });
  return result;
}

}  // namespace attune
