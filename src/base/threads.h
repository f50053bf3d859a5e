#pragma once
#include <cstdint>
#include <functional>

namespace attune {

/// Threads this process may use: the affinity mask, cut down to the cgroup's CPU quota. At least 1.
int available_threads();

/// Runs body(begin, end) over [0, count) in pieces of at least `grain` on `threads` std::threads
/// (not OpenMP). The first exception of a piece is thrown after all pieces ended.
void parallel_for(int64_t count, int64_t grain, int threads,
                  const std::function<void(int64_t, int64_t)>& body);

}  // namespace attune
