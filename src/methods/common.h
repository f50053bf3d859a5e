#pragma once
#include <cstdint>
#include <string>
#include <vector>

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

}  // namespace attune
