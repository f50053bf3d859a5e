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

namespace {

/// Does the pattern speak of a mixture's copies ("*.ffn.e*.up")?
bool names_copies(std::string_view glob) {
  for (size_t at = glob.find(".e"); at != std::string_view::npos; at = glob.find(".e", at + 1)) {
    const size_t next = at + 2;
    if (next < glob.size() && std::string_view("0123456789*?[").find(glob[next]) != glob.npos)
      return true;
  }
  return false;
}

}  // namespace

std::vector<Site> select_sites(const std::vector<Site>& sites, std::string_view glob) {
  std::vector<Site> result;
  const bool copies = names_copies(glob);
  for (const Site& site : sites)
    if (!site.hidden && (copies || site.copy_of < 0) && glob_match(glob, site.name))
      result.push_back(site);
  if (!result.empty()) return result;
  std::vector<std::string> names;
  for (const Site& site : sites) names.push_back(site.name);
  fail(ErrorCode::BadInput,
       "the site pattern \"{}\" matches nothing in this model; near names: {}. `attune inspect "
       "MODEL` lists every site",
       glob, join(nearest(glob, names, 5), ", "));
}

}  // namespace attune
