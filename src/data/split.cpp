#include "data/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace attune {
namespace {

struct Stratum {
  std::string name;
  std::vector<int64_t> rows;
  int64_t held = 0;      // rows for evaluation
  double remainder = 0;  // of the exact proportion
  int64_t room() const { return static_cast<int64_t>(rows.size()) - 1 - held; }
};

std::vector<Stratum> collect(const std::vector<std::string>& names) {
  std::vector<Stratum> strata;
  std::map<std::string, size_t> places;
  for (size_t row = 0; row < names.size(); ++row) {
    const std::pair<std::map<std::string, size_t>::iterator, bool> place =
        places.try_emplace(names[row], strata.size());
    if (place.second) strata.push_back({names[row], {}, 0, 0});
    strata[place.first->second].rows.push_back(static_cast<int64_t>(row));
  }
  return strata;
}

/// Rows to hold out. Errors: see split().
int64_t rows_wanted(double share, int64_t rows, int64_t room) {
  if (!(share > 0) || (share >= 1 && share != std::floor(share)))
    fail(ErrorCode::BadInput,
         "splitting data: the share to hold out is {}, expected a share between 0 and 1 or a whole "
         "number of rows",
         share);
  if (room == 0)
    fail(ErrorCode::BadInput,
         "splitting data: none of {} rows can be held out, for each label occurs only once; name a "
         "file for evaluation",
         rows);
  if (share < 1)
    return std::clamp<int64_t>(std::llround(share * static_cast<double>(rows)), 1, room);
  if (share > static_cast<double>(room))
    fail(ErrorCode::BadInput,
         "splitting data: {} rows are to be held out, but only {} of {} can be when each label "
         "keeps "
         "one row for training; hold out fewer",
         share, room, rows);
  return static_cast<int64_t>(share);
}

void allot(std::vector<Stratum>& strata, int64_t wanted, int64_t rows) {
  int64_t given = 0;
  for (Stratum& stratum : strata) {
    const double exact = static_cast<double>(wanted) * static_cast<double>(stratum.rows.size()) /
                         static_cast<double>(rows);
    stratum.held = std::min(static_cast<int64_t>(exact), stratum.room());
    stratum.remainder = exact - static_cast<double>(stratum.held);
    given += stratum.held;
  }
  std::vector<size_t> order(strata.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return strata[a].remainder > strata[b].remainder; });
  // More than one round only when strata without room pass their part on to others.
  while (given < wanted)
    for (const size_t i : order)
      if (given < wanted && strata[i].room() > 0) {
        ++strata[i].held;
        ++given;
      }
}

}  // namespace

Split split(const std::vector<std::string>& strata_names, double share, uint64_t seed) {
  const int64_t rows = static_cast<int64_t>(strata_names.size());
  if (rows < 2) fail(ErrorCode::BadInput, "splitting data: {} rows, expected at least 2", rows);
  std::vector<Stratum> strata = collect(strata_names);
  allot(strata, rows_wanted(share, rows, rows - static_cast<int64_t>(strata.size())), rows);
  Split result;
  for (const Stratum& stratum : strata) {
    const std::vector<int64_t> order = Stream64(seed, "split")
                                           .with(stratum.name)
                                           .permutation(static_cast<int64_t>(stratum.rows.size()));
    for (size_t i = 0; i < order.size(); ++i)
      (static_cast<int64_t>(i) < stratum.held ? result.eval : result.train)
          .push_back(stratum.rows[static_cast<size_t>(order[i])]);
  }
  std::sort(result.train.begin(), result.train.end());
  std::sort(result.eval.begin(), result.eval.end());
  return result;
}

}  // namespace attune
