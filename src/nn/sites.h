#pragma once
#include <functional>
#include <string>
#include <utility>

#include "core/site.h"

namespace attune {

/// Adds sites to a model that is being built.
class SiteMaker {
 public:
  using Add = std::function<int(Site site, int tied_to)>;
  explicit SiteMaker(Add add) : add_(std::move(add)) {}

  /// A Weight site; tied_to: a site whose tensors it shares, or -1. Returns its id.
  int weight(const std::string& name, WeightKind kind, int64_t in, int64_t out, bool bias,
             int layer = -1, int tied_to = -1) const {
    Site site;
    site.name = name;
    site.weight = kind;
    site.layer = layer;
    site.in = in;
    site.out = out;
    site.bias = bias;
    return add_(std::move(site), tied_to);
  }
  /// Any other site, `width` features wide.
  int flow(const std::string& name, SiteKind kind, int64_t width, int layer = -1,
           int64_t heads = 1) const {
    Site site;
    site.name = name;
    site.kind = kind;
    site.layer = layer;
    site.in = site.out = width;
    site.heads = heads;
    return add_(std::move(site), -1);
  }

 private:
  Add add_;
};

}  // namespace attune
