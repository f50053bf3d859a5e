#pragma once
// Parameter formulas of the registry over lists of projections that no model holds.
#include <string>
#include <vector>

#include "base/options.h"
#include "methods/registry.h"

namespace attune {

/// A projection [out, in] as a formula sees it.
inline Site projection_site(const std::string& name, int64_t out, int64_t in) {
  Site site;
  site.name = name;
  site.kind = SiteKind::Weight;
  site.weight = WeightKind::Projection;
  site.layer = 0;
  site.out = out;
  site.in = in;
  return site;
}

/// `layers` copies of the named projections of a block: "self.q", "ffn.up", ...
inline std::vector<Site> blocks_of(int64_t layers, int64_t hidden, int64_t inner,
                                   const std::vector<std::string>& parts) {
  std::vector<Site> sites;
  for (int64_t i = 0; i < layers; ++i)
    for (const std::string& part : parts)
      sites.push_back(projection_site("enc." + std::to_string(i) + "." + part,
                                      part == "ffn.up" ? inner : hidden,
                                      part == "ffn.down" ? inner : hidden));
  return sites;
}

inline int64_t formula_of(const std::string& method, const Json& options,
                          const std::vector<Site>& sites) {
  const Registry<Tuner> registry = methods();
  const Entry<Tuner>& entry = registry.at(method);
  return entry.count(sites, Options(entry.options, Node::from_json(options, {"t", 0, 0}), "t"));
}

}  // namespace attune
