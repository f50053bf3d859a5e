#include "tensor/memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#include "kernels/memory.h"
#include "tensor/compat.h"
#include "tensor/torch.h"

namespace attune {

namespace {

constexpr size_t kLarge = size_t{64} << 10, kPage = size_t{2} << 20, kSegment = size_t{32} << 20;

/// What stands before a tensor's first byte: a piece of a segment, or memory of its own when it is
/// smaller than kLarge.
struct alignas(64) Chunk {
  size_t bytes = 0;         // this header included
  Chunk* before = nullptr;  // the piece before it in its segment; null for the first
  bool last = false, free = false;
  Chunk* after() {
    return last ? nullptr : reinterpret_cast<Chunk*>(reinterpret_cast<char*>(this) + bytes);
  }
  bool whole() const { return before == nullptr && last; }
};
constexpr size_t kHeader = sizeof(Chunk);

size_t rounded(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

/// Memory of the system, cut into pieces; free neighbours become one piece again, so that what
/// activations leave can hold gradients, and a batch of a few rows more what the one before it
/// left. There is one segment, which grows at its end, as long as the addresses behind it are free:
/// several lose what is free in each but too small for a tensor (a tenth of a run's peak).
class Segments {
 public:
  Chunk* take(size_t bytes) {
    bytes = rounded(bytes, kHeader);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::set<std::pair<size_t, Chunk*>>::iterator found = free_.lower_bound({bytes, nullptr});
    Chunk* chunk = found == free_.end() ? grown(bytes) : found->second;
    forget(chunk);
    if (chunk->bytes - bytes >= kLarge) keep(cut(chunk, bytes));
    chunk->free = false;
    counts_.in_use += static_cast<int64_t>(chunk->bytes);
    counts_.peak = std::max(counts_.peak, counts_.in_use);
    return chunk;
  }
  void give(Chunk* chunk) {
    const std::lock_guard<std::mutex> lock(mutex_);
    counts_.in_use -= static_cast<int64_t>(chunk->bytes);
    if (Chunk* after = chunk->after(); after != nullptr && after->free) {
      forget(after);
      join(chunk, after);
    }
    if (Chunk* before = chunk->before; before != nullptr && before->free) {
      forget(before);
      join(before, chunk);
      chunk = before;
    }
    keep(chunk);
  }
  /// The pages of free pieces of at least `bytes`.
  void return_free(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    forget_free_pages(bytes);
  }
  MemoryCounts counts() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return counts_;
  }

 private:
  void keep(Chunk* chunk) {
    chunk->free = true;
    counts_.kept += static_cast<int64_t>(chunk->bytes);
    free_.insert({chunk->bytes, chunk});
  }
  void forget(Chunk* chunk) {
    counts_.kept -= static_cast<int64_t>(chunk->bytes);
    free_.erase({chunk->bytes, chunk});
  }
  /// Shortens a piece to `bytes` and returns the rest of it.
  Chunk* cut(Chunk* chunk, size_t bytes) {
    Chunk* rest = new (reinterpret_cast<char*>(chunk) + bytes) Chunk;
    rest->bytes = chunk->bytes - bytes;
    rest->before = chunk;
    rest->last = chunk->last;
    chunk->bytes = bytes;
    chunk->last = false;
    if (Chunk* after = rest->after(); after != nullptr) after->before = rest;
    if (chunk == end_) end_ = rest;
    return rest;
  }
  void join(Chunk* chunk, const Chunk* after) {
    chunk->bytes += after->bytes;
    chunk->last = after->last;
    if (Chunk* next = chunk->after(); next != nullptr) next->before = chunk;
    if (after == end_) end_ = chunk;
  }
  /// A free piece of at least `bytes`, where none was large enough.
  Chunk* grown(size_t bytes) {
    forget_free_pages(kSegment);
    const size_t there = end_ != nullptr && end_->free ? end_->bytes : 0;
    if (Chunk* chunk = lengthened(rounded(bytes - there, kPage)); chunk != nullptr) return chunk;
    give_back();
    for (const size_t size : {std::max(bytes, kSegment), bytes})
      if (Chunk* chunk = begun(rounded(size, kPage)); chunk != nullptr) return chunk;
    throw std::bad_alloc();
  }
  /// The last piece of the newest segment, `size` longer; null where the addresses behind it are
  /// taken or the system has no more.
  Chunk* lengthened(size_t size) {
    if (end_ == nullptr) return nullptr;
    char* const behind = reinterpret_cast<char*>(end_) + end_->bytes;
    void* memory = map(behind, size);
    if (memory == nullptr) return nullptr;
    if (memory != behind) {
      ::munmap(memory, size);
      return nullptr;
    }
    Chunk* chunk = added(memory, size);
    chunk->before = end_;
    end_->last = false;
    if (end_->free) {
      forget(chunk);
      forget(end_);
      join(end_, chunk);
      keep(end_);
      return end_;
    }
    return end_ = chunk;
  }
  Chunk* begun(size_t size) {
    void* memory = map(counts_.made == 0 ? first_place() : nullptr, size);
    if (memory == nullptr) return nullptr;
    ++counts_.made;
    return end_ = added(memory, size);
  }
  Chunk* added(void* memory, size_t size) {
    Chunk* chunk = new (memory) Chunk;
    chunk->bytes = size;
    chunk->last = true;
    keep(chunk);
    return chunk;
  }
  /// Where the addresses behind are free for tens of terabytes (48 bits of them; elsewhere the
  /// system chooses another place), spread as this object's address is.
  void* first_place() const {
    const uintptr_t spread = (reinterpret_cast<uintptr_t>(this) >> 12) & 0x7fff;
    return reinterpret_cast<void*>((uintptr_t{1} << 45) + (spread << 30));
  }
  /// Memory of the system, at `place` if that is free; null where there is no more.
  static void* map(void* place, size_t size) {
    constexpr int kProtection = PROT_READ | PROT_WRITE, kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
    void* memory = ::mmap(place, size, kProtection, kFlags, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
    static_cast<void>(::madvise(memory, size, MADV_HUGEPAGE));  // a hint
#endif
    return memory;
  }
  /// Large free pieces keep their addresses but not their pages: shapes have changed.
  void forget_free_pages(size_t bytes) {
    for (auto at = free_.lower_bound({bytes, nullptr}); at != free_.end(); ++at) {
      const uintptr_t begin = reinterpret_cast<uintptr_t>(at->second);
      const uintptr_t from = rounded(begin + kHeader, kPage),
                      to = (begin + at->first) / kPage * kPage;
      if (from >= to) continue;
      static_cast<void>(::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED));
    }
  }
  void give_back() {
    for (std::set<std::pair<size_t, Chunk*>>::iterator at = free_.begin(); at != free_.end();) {
      Chunk* chunk = at->second;
      ++at;
      if (!chunk->whole()) continue;
      forget(chunk);
      if (chunk == end_) end_ = nullptr;
      ::munmap(chunk, chunk->bytes);
    }
  }

  std::mutex mutex_;
  std::set<std::pair<size_t, Chunk*>> free_;  // by size, then by address
  Chunk* end_ = nullptr;                      // the last piece of the newest segment
  MemoryCounts counts_;
};

/// Never destroyed: tensors may outlive any order of destruction.
Segments& segments() {
  static Segments* const all = new Segments;
  return *all;
}

void release(void* data) {
  if (data == nullptr) return;
  Chunk* chunk = reinterpret_cast<Chunk*>(static_cast<char*>(data) - kHeader);
  if (chunk->bytes >= kLarge) return segments().give(chunk);
  std::free(chunk);
}

/// Memory for `n` bytes, until release(). Errors: std::bad_alloc.
void* taken(size_t n) {
  if (n > SIZE_MAX / 2) throw std::bad_alloc();
  const size_t bytes = n + kHeader;
  void* memory = nullptr;
  if (bytes >= kLarge) {
    memory = segments().take(bytes);
  } else if (posix_memalign(&memory, kHeader, bytes) == 0) {
    (new (memory) Chunk)->bytes = bytes;
  } else {
    throw std::bad_alloc();
  }
  return static_cast<char*>(memory) + kHeader;
}

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t n) ATTUNE_ALLOCATE_CONST override {
    void* data = n == 0 ? nullptr : taken(n);
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
  return segments().counts();
}

void return_free_memory() {
  segments().return_free(2 * kPage);
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

void keep_freed_memory() {
  static const bool done = [] {
    c10::SetCPUAllocator(new KeepingAllocator);
    kernels::lend_memory(&taken, &release);
    return true;
  }();
  static_cast<void>(done);
}

at::Tensor zeros_when_written(const at::Tensor& like) {
  const size_t bytes = like.nbytes();
  if (bytes == 0) return at::zeros_like(like);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_NOHUGEPAGE
  static_cast<void>(::madvise(memory, bytes, MADV_NOHUGEPAGE));  // a row brings no 2 MiB with it
#endif
  return at::from_blob(
      memory, like.sizes(), [bytes](void* data) { ::munmap(data, bytes); }, like.options());
}

}  // namespace attune
