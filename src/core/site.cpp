#include "core/site.h"

#include "base/error.h"
#include "base/text.h"

namespace attune {

const char* kind_name(SiteKind kind) {
  switch (kind) {
    case SiteKind::Weight:
      return "weight";
    case SiteKind::Rows:
      return "rows";
    case SiteKind::Heads:
      return "heads";
    case SiteKind::Scores:
      return "scores";
    case SiteKind::KeyValue:
      return "key_value";
    case SiteKind::Part:
      return "part";
  }
  return "?";
}

Site Site::shared() {
  Site site;
  site.name = "shared";
  return site;
}

std::string block_of(const Site& site) {
  if (site.layer < 0) return "";
  const size_t stack = site.name.find('.');
  return site.name.substr(0, site.name.find('.', stack + 1) + 1);
}

const Site* find_site(const std::vector<Site>& sites, std::string_view name) {
  for (const Site& site : sites)
    if (site.name == name) return &site;
  return nullptr;
}

std::vector<Site> select_sites(const std::vector<Site>& sites, std::string_view glob) {
  std::vector<Site> result;
  for (const Site& site : sites)
    if (!site.hidden && glob_match(glob, site.name)) result.push_back(site);
  if (!result.empty()) return result;
  std::vector<std::string> names;
  for (const Site& site : sites) names.push_back(site.name);
  fail(ErrorCode::BadInput,
       "the site pattern \"{}\" matches nothing in this model; near names: {}. `attune inspect "
       "MODEL` lists every site",
       glob, join(nearest(glob, names, 5), ", "));
}

}  // namespace attune
