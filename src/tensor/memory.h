#pragma once
#include <cstddef>
#include <cstdint>

namespace attune {

/// What keep_freed_memory has done so far, in bytes (headers included).
struct MemoryCounts {
  int64_t in_use = 0, kept = 0,
          peak = 0;  // large blocks: with tensors, freed but kept, most in use
  int64_t made = 0;  // large blocks asked of the system, a count
};
MemoryCounts memory_counts();

/// From here on, LibTorch's tensors on the CPU of 64 KiB and more take blocks that earlier tensors
/// freed, so that a steady training step asks the system for no page. Blocks come in eight sizes an
/// octave. No more bytes are kept than were in use at the most; a block that has to be made new is
/// made in the place of kept ones, and all are given back before an allocation fails
/// (std::bad_alloc). Once a process; further calls do nothing.
void keep_freed_memory();

}  // namespace attune
