#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/options.h"
#include "core/tuner.h"

namespace attune {

/// The projections that the globs select, each once, in model order. Other sites a glob matches are
/// left out. Errors: BadInput when a glob matches nothing, or sites but no projection; the message
/// names the method and the projections nearest to the glob.
std::vector<Site> projections(Attachment& attachment, const std::vector<std::string>& globs,
                              const char* method);

/// Bound of the uniform draw that Kaiming's rule with a = sqrt(5) makes of `inputs` summands, as
/// torch initialises linear layers: 1 / sqrt(inputs).
double kaiming_bound(int64_t inputs);

/// Errors: BadInput when `rank` is larger than the site's matrix; the message names method and
/// site.
void check_rank(const char* method, int64_t rank, const Site& site);

/// A number by site: that of the first pattern which matches the site's name, else the default.
class ByPattern {
 public:
  /// Reads the option `name` ("rank") and the mapping `name`_pattern from globs to numbers.
  /// Errors: BadInput, naming the place, for a value below `least` or (when `whole`) no integer.
  ByPattern(const Options& options, const std::string& name, double least, bool whole);
  double at(const Site& site) const;
  int64_t whole_at(const Site& site) const { return static_cast<int64_t>(at(site)); }
  /// Errors: BadInput when a pattern matches none of the sites; shows near names.
  void check(const std::vector<Site>& sites, const char* method) const;

 private:
  std::string name_;
  double fallback_;
  std::vector<std::pair<std::string, double>> patterns_;
};

/// alpha / rank, or alpha / sqrt(rank) when rank-stabilised.
/// Reference: Hu et al. 2021, arXiv 2106.09685, section 4.1; Kalajdzievski 2023, arXiv 2312.03732.
double low_rank_scale(double alpha, int64_t rank, bool stabilised);

/// Dropout of a whole weight update while training: rows of it, or all of a site's at once.
/// Reference: LyCORIS's and PEFT's rank_dropout and module_dropout.
struct UpdateDropout {
  double rows = 0, whole = 0;  // probabilities in [0, 1)
  bool rescale = false;        // divide by the share of rows that stay
  uint64_t key = 0;            // of the site's random stream
  /// What multiplies the update [out, in] in this pass: [out, 1], or undefined for one.
  Tensor factor(const Pass& pass, const Tensor& like) const;
};

}  // namespace attune
