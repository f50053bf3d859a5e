#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace attune {

namespace {

/// CPUs' worth of time the cgroup grants; 0 when it sets no limit.
double cgroup_quota() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) return std::stod(quota) / period;
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double micros = 0;
  if (q >> micros && p >> period && micros > 0 && period > 0) return micros / period;
  return 0;
}

}  // namespace

int available_threads() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int count = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) count = CPU_COUNT(&mask);
  const double quota = cgroup_quota();
  if (quota > 0) count = std::min(count, std::max(1, static_cast<int>(std::ceil(quota))));
  return std::max(1, count);
}

void parallel_for(int64_t count, int64_t grain, int threads,
                  const std::function<void(int64_t, int64_t)>& body) {
  const int64_t pieces =
      std::min<int64_t>(threads, std::max<int64_t>(1, count / std::max<int64_t>(1, grain)));
  if (pieces <= 1) {
    if (count > 0) body(0, count);
    return;
  }
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> workers;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    workers.emplace_back([&, piece] {
      try {
        body(count * piece / pieces, count * (piece + 1) / pieces);
      } catch (...) {
        const std::lock_guard<std::mutex> hold(mutex);
        if (!first) first = std::current_exception();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace attune
