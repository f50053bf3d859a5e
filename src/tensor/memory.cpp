#include "tensor/memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#include "tensor/compat.h"

namespace attune {

namespace {

constexpr size_t kHeader = 64, kLarge = size_t{64} << 10;

/// What stands before a tensor's first byte.
struct Header {
  size_t bytes;  // of the block, this header included
};

/// n rounded up to one of eight sizes an octave, whole pages.
size_t block_bytes(size_t n) {
  size_t step = size_t{4} << 10;
  while (step * 16 <= n) step *= 2;
  return (n + step - 1) / step * step;
}

class Blocks {
 public:
  /// A block of at least `bytes`; says how large it is.
  void* take(size_t& bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // Batches differ by a few rows from step to step: a block a little too large will do.
      const Kept::iterator free = kept_.lower_bound({bytes, 0});
      if (free != kept_.end() && free->first.first <= bytes + bytes / 3) {
        bytes = free->first.first;
        void* block = forget(free);
        used(bytes);
        return block;
      }
      // Blocks of sizes that nobody asks for any more must not pile up.
      const int64_t room = counts_.peak + counts_.peak / 4 - counts_.in_use - counts_.kept;
      if (room < static_cast<int64_t>(bytes)) give_back(bytes);
    }
    void* block = fresh(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    ++counts_.made;
    used(bytes);
    return block;
  }
  void give(void* block, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    counts_.in_use -= static_cast<int64_t>(bytes);
    counts_.kept += static_cast<int64_t>(bytes);
    ages_[++clock_] = bytes;
    kept_[{bytes, clock_}] = block;
  }
  MemoryCounts counts() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return counts_;
  }

 private:
  void used(size_t bytes) {
    counts_.in_use += static_cast<int64_t>(bytes);
    counts_.peak = std::max(counts_.peak, counts_.in_use);
  }
  using Kept = std::map<std::pair<size_t, uint64_t>, void*>;

  void* forget(Kept::iterator kept) {
    void* block = kept->second;
    counts_.kept -= static_cast<int64_t>(kept->first.first);
    ages_.erase(kept->first.second);
    kept_.erase(kept);
    return block;
  }
  /// Frees the blocks kept longest, `bytes` of them together.
  void give_back(size_t bytes) {
    for (size_t freed = 0; freed < bytes && !ages_.empty();) {
      const std::pair<const uint64_t, size_t> oldest = *ages_.begin();
      freed += oldest.second;
      std::free(forget(kept_.find({oldest.second, oldest.first})));
    }
  }
  void* fresh(size_t bytes) {
    void* block = nullptr;
    if (posix_memalign(&block, kHeader, bytes) == 0) return block;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      give_back(SIZE_MAX);
    }
    if (posix_memalign(&block, kHeader, bytes) == 0) return block;
    throw std::bad_alloc();
  }

  std::mutex mutex_;
  Kept kept_;                        // by size, then by when they were freed
  std::map<uint64_t, size_t> ages_;  // sizes of the same blocks by when they were freed
  uint64_t clock_ = 0;
  MemoryCounts counts_;
};

/// Never destroyed: tensors may outlive any order of destruction.
Blocks& blocks() {
  static Blocks* const all = new Blocks;
  return *all;
}

void release(void* data) {
  if (data == nullptr) return;
  char* block = static_cast<char*>(data) - kHeader;
  const size_t bytes = reinterpret_cast<Header*>(block)->bytes;
  if (bytes >= kLarge) return blocks().give(block, bytes);
  std::free(block);
}

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t n) ATTUNE_ALLOCATE_CONST override {
    if (n == 0) return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
    size_t bytes = n + kHeader;
    void* block = nullptr;
    if (bytes >= kLarge) {
      bytes = block_bytes(bytes);
      block = blocks().take(bytes);
    } else if (posix_memalign(&block, kHeader, bytes) != 0) {
      throw std::bad_alloc();
    }
    static_cast<Header*>(block)->bytes = bytes;
    void* data = static_cast<char*>(block) + kHeader;
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
#ifdef ATTUNE_ALLOCATOR_COPIES
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }
#endif
};

}  // namespace

MemoryCounts memory_counts() {
  return blocks().counts();
}

void keep_freed_memory() {
  static const bool done = [] {
    c10::SetCPUAllocator(new KeepingAllocator);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace attune
