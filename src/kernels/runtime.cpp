#include "kernels/detail/runtime.h"

#include <cpuid.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace attune::kernels {
namespace {

/// Not among the names that clang's __builtin_cpu_supports knows.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

/// Bf16 tiles that the processor has and the system lets this process use: it asks, because tile
/// data make a thread's state larger.
bool has_amx_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0)
    return false;
  constexpr long kRequestState = 0x1023, kTileData = 18;  // arch_prctl, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
}

Isa detect() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool native = avx512 && __builtin_cpu_supports("avx512bf16");
  if (native && has_amx_bf16()) return Isa::AmxBf16;
  return native ? Isa::Avx512Bf16 : avx512 ? Isa::Avx512 : avx2 ? Isa::Avx2 : Isa::Ref;
}

Isa requested() {
  const char* text = std::getenv("ATTUNE_ISA");
  if (text == nullptr) return kBestIsa;
  for (const Isa candidate : {Isa::Ref, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16})
    if (std::strcmp(text, isa_name(candidate)) == 0) return candidate;
  return kBestIsa;
}

Isa best() {
  static const Isa value = std::min(detect(), requested());
  return value;
}

/// The limit set by tests; process wide because kernels are called from many places.
std::atomic<Isa>& limit() {
  static std::atomic<Isa> value{kBestIsa};
  return value;
}

struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;
  ~Buffer() { std::free(data); }
};

/// What is left of a thread's part: the first piece in the upper half, the end in the lower.
struct alignas(64) Part {
  std::atomic<uint64_t> left{0};

  static uint64_t packed(uint64_t begin, uint64_t end) { return begin << 32 | end; }
  /// From the front, or from the end; false when nothing is left.
  bool take(bool front, int64_t grain, int64_t* from, int64_t* to) {
    uint64_t seen = left.load(std::memory_order_relaxed);
    for (;;) {
      const int64_t begin = static_cast<int64_t>(seen >> 32),
                    end = static_cast<int64_t>(seen & 0xffffffffu), rest = end - begin;
      if (rest <= 0) return false;
      const int64_t count = std::min(rest, front ? std::max(grain, rest / 2) : grain);
      *from = front ? begin : end - count;
      *to = *from + count;
      const uint64_t next =
          front ? packed(static_cast<uint64_t>(*to), static_cast<uint64_t>(end))
                : packed(static_cast<uint64_t>(begin), static_cast<uint64_t>(*from));
      if (left.compare_exchange_weak(seen, next, std::memory_order_relaxed)) return true;
    }
  }
};
constexpr int kMostParts = 64;

}  // namespace

void detail::share_out(int64_t count, int64_t grain, Piece piece, const void* body) {
  const int parts = std::min(threads(), kMostParts);
  if (count <= 0) return;
  if (parts < 2 || count <= grain || count > INT32_MAX || omp_in_parallel() != 0)
    return piece(body, 0, count);
  Part all[kMostParts];
  for (int i = 0; i < parts; ++i)
    all[i].left.store(Part::packed(static_cast<uint64_t>(count * i / parts),
                                   static_cast<uint64_t>(count * (i + 1) / parts)),
                      std::memory_order_relaxed);
#pragma omp parallel
  {
    const int own = omp_get_thread_num() % parts;
    int64_t from = 0, to = 0;
    for (int i = 0; i < parts; ++i)
      while (all[(own + i) % parts].take(i == 0, grain, &from, &to)) piece(body, from, to);
  }
}

Isa isa() {
  return std::min(best(), limit().load(std::memory_order_relaxed));
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::Ref:
      return "ref";
    case Isa::Avx2:
      return "avx2";
    case Isa::Avx512:
      return "avx512";
    case Isa::Avx512Bf16:
      return "avx512_bf16";
    case Isa::AmxBf16:
      return "amx_bf16";
  }
  return "unknown";
}

void limit_isa(Isa value) {
  limit().store(value, std::memory_order_relaxed);
}

void set_threads(int threads) {
  omp_set_num_threads(threads < 1 ? 1 : threads);
}
int threads() {
  return omp_get_max_threads();
}

namespace {

void* take_of_system(size_t bytes) {
  return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
}
/// Set once, before threads that multiply.
struct Lender {
  void* (*take)(size_t) = take_of_system;
  void (*give)(void*) = std::free;
} lender;

}  // namespace

void lend_memory(void* (*take)(size_t bytes), void (*give)(void* memory)) {
  lender = {take, give};
}

detail::Borrowed::Borrowed(size_t bytes) : data_(lender.take(bytes)) {
  if (data_ == nullptr) throw std::bad_alloc();
}
detail::Borrowed::~Borrowed() {
  lender.give(data_);
}

void* detail::thread_scratch(int slot, size_t bytes) {
  // One growing buffer a slot and thread: kernels run thousands of times a second, and fresh pages
  // cost more than the work of a small call.
  thread_local Buffer buffers[3];
  Buffer& buffer = buffers[slot];
  if (buffer.bytes < bytes) {
    std::free(buffer.data);
    buffer.bytes = (bytes + bytes / 2 + 4095) / 4096 * 4096;
    buffer.data = std::aligned_alloc(64, buffer.bytes);
    if (buffer.data == nullptr) {
      buffer.bytes = 0;
      throw std::bad_alloc();
    }
  }
  return buffer.data;
}

}  // namespace attune::kernels
