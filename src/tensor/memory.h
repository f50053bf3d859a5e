#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace attune {

/// What keep_freed_memory has done so far, in bytes (headers included).
struct MemoryCounts {
  int64_t in_use = 0, kept = 0,
          peak = 0;  // large tensors: alive, free in the segments, most alive at once
  int64_t made = 0;  // segments asked of the system, a count
};
MemoryCounts memory_counts();

/// From here on, LibTorch's tensors on the CPU of 64 KiB and more are cut out of one segment that
/// grows by what is missing (in large pages where the system gives them), and free neighbours join
/// again, so that a steady training step asks the system for no page; kernels borrow there too.
/// When nothing free is large enough, the pages of large free pieces go back before it grows; where
/// it cannot grow another is made, after segments that are free as a whole have been given back.
/// std::bad_alloc when the system has no more. Once a process; further calls do nothing.
void keep_freed_memory();

/// What is free in the segments keeps its addresses but not its memory, until it is used again.
void return_free_memory();

/// Zeros like a tensor, of which the system gives a page only once something is written there.
/// Errors: std::bad_alloc.
at::Tensor zeros_when_written(const at::Tensor& like);

}  // namespace attune
