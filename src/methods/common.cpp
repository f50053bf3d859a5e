#include "methods/common.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace attune {

namespace {

bool is_projection(const Site& site) {
  return site.kind == SiteKind::Weight && site.weight == WeightKind::Projection;
}

[[noreturn]] void no_projection(Attachment& attachment, const std::string& glob,
                                const std::string& found, const char* method) {
  std::vector<std::string> names;
  for (const Site& site : attachment.all_sites())
    if (is_projection(site) && !site.hidden) names.push_back(site.name);
  fail(ErrorCode::BadInput,
       "{}: the site pattern \"{}\" matches {}, but no projection; this method adapts "
       "projections, the nearest of this model are {}",
       method, glob, found, join(nearest(glob, names, 5), ", "));
}

}  // namespace

std::vector<Site> projections(Attachment& attachment, const std::vector<std::string>& globs,
                              const char* method) {
  std::vector<Site> result;
  for (const std::string& glob : globs) {
    const std::vector<Site> matched = attachment.sites(glob);
    size_t found = 0;
    for (const Site& site : matched) {
      if (!is_projection(site)) continue;
      ++found;
      const bool seen = std::any_of(result.begin(), result.end(),
                                    [&](const Site& other) { return other.id == site.id; });
      if (!seen) result.push_back(site);
    }
    if (found == 0) no_projection(attachment, glob, matched.front().name, method);
  }
  std::sort(result.begin(), result.end(), [](const Site& a, const Site& b) { return a.id < b.id; });
  return result;
}

double kaiming_bound(int64_t inputs) {
  return 1.0 / std::sqrt(static_cast<double>(inputs));
}

void check_rank(const char* method, int64_t rank, const Site& site) {
  const int64_t most = std::min(site.in, site.out);
  if (rank > most)
    fail(ErrorCode::BadInput,
         "{}: rank {} at {} is larger than the matrix [{}, {}]; give a rank of at most {}", method,
         rank, site.name, site.out, site.in, most);
}

}  // namespace attune
