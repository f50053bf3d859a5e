#pragma once
#include <cstddef>
#include <cstdint>

/// What the per-instruction-set files may call: plain functions compiled once with portable flags.
/// Those files must not use inline code of the standard library that could leave the linker with
/// one copy built for an instruction set this CPU lacks.
namespace attune::kernels::detail {

/// A 64-byte aligned buffer of this thread that lives until the next request for the same slot
/// (contents undefined). Slot 0 is for a call's own thread, slot 1 for the body of a parallel
/// region, slot 2 for gemm.
void* thread_scratch(int slot, size_t bytes);

template <class T>
static T* scratch(int slot, int64_t count) {
  return static_cast<T*>(thread_scratch(slot, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace attune::kernels::detail
