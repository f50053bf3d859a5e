#include "methods/common.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "tensor/torch.h"

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

ByPattern::ByPattern(const Options& options, const std::string& name, double least, bool whole)
    : name_(name), fallback_(options.get<double>(name)) {
  const std::string key = name + "_pattern";
  for (const std::pair<std::string, Node>& entry : options.get<Node>(key).entries()) {
    const std::string where = options.path() + "." + key + "." + entry.first;
    const double value =
        whole ? static_cast<double>(entry.second.as_int(where)) : entry.second.as_number(where);
    if (!(value >= least))
      fail(ErrorCode::BadInput, "{}: {}: {} is out of range; give at least {}",
           entry.second.place().text(), where, value, least);
    patterns_.emplace_back(entry.first, value);
  }
}

double ByPattern::at(const Site& site) const {
  for (const std::pair<std::string, double>& pattern : patterns_)
    if (glob_match(pattern.first, site.name)) return pattern.second;
  return fallback_;
}

void ByPattern::check(const std::vector<Site>& sites, const char* method) const {
  std::vector<std::string> names;
  for (const Site& site : sites) names.push_back(site.name);
  for (const std::pair<std::string, double>& pattern : patterns_) {
    const bool used = std::any_of(sites.begin(), sites.end(), [&](const Site& site) {
      return glob_match(pattern.first, site.name);
    });
    if (!used)
      fail(
          ErrorCode::BadInput,
          "{}: the pattern \"{}\" of {}_pattern matches none of the chosen sites; near ones are {}",
          method, pattern.first, name_, join(nearest(pattern.first, names, 3), ", "));
  }
}

double low_rank_scale(double alpha, int64_t rank, bool stabilised) {
  const double r = static_cast<double>(rank);
  return stabilised ? alpha / std::sqrt(r) : alpha / r;
}

Tensor UpdateDropout::factor(const Pass& pass, const Tensor& like) const {
  if (!pass.training || (rows <= 0 && whole <= 0)) return {};
  const Stream64 draws = Stream64(key).with(static_cast<uint64_t>(pass.step));
  const int64_t out = like.size(0);
  Tensor keep = at::ones({out, 1}, like.options());
  if (whole > 0 && draws.with("whole").uniform(0) < whole) return at::zeros_like(keep);
  if (rows <= 0) return keep;
  const Stream64 by_row = draws.with("rows");
  int64_t kept = 0;
  for (int64_t i = 0; i < out; ++i) {
    const bool stays = by_row.uniform(static_cast<uint64_t>(i)) >= rows;
    kept += stays ? 1 : 0;
    if (!stays) keep.select(0, i).zero_();
  }
  return rescale && kept > 0 ? keep * (static_cast<double>(out) / static_cast<double>(kept)) : keep;
}

}  // namespace attune
