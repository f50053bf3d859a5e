#include "core/site.h"

#include "base/error.h"
#include "base/text.h"

namespace attune {

const char* kind_name(SiteKind kind) {
  switch (kind) {
    case SiteKind::Weight: return "weight";
    case SiteKind::Rows: return "rows";
    case SiteKind::Heads: return "heads";
    case SiteKind::Scores: return "scores";
    case SiteKind::KeyValue: return "key_value";
    case SiteKind::Part: return "part";
  }
  return "?";
}

std::vector<Site> select_sites(const std::vector<Site>& sites, std::string_view glob) {
  std::vector<Site> result;
  for (const Site& site : sites)
    if (glob_match(glob, site.name)) result.push_back(site);
  if (!result.empty()) return result;
  std::vector<std::string> names;
  for (const Site& site : sites) names.push_back(site.name);
  fail(ErrorCode::BadInput,
       "the site pattern \"{}\" matches nothing in this model; near names: {}. `attune inspect MODEL` lists every site",
       glob, join(nearest(glob, names, 5), ", "));
}

}  // namespace attune
