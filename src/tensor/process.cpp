#include "tensor/process.h"

#include <malloc.h>

#include "base/threads.h"
#include "kernels/kernels.h"
#include "tensor/memory.h"
#include "tensor/torch.h"

namespace attune {

int start_threads(int asked) {
  const int threads = asked > 0 ? asked : available_threads();
  kernels::set_threads(threads);
  at::set_num_threads(threads);
  keep_freed_memory();
#ifdef M_MMAP_THRESHOLD
  // The largest threshold that glibc takes is 32 MiB on 64 bits.
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024 * static_cast<int>(sizeof(long)));
  mallopt(M_TRIM_THRESHOLD, 2000 * 1024 * 1024);
  mallopt(M_TOP_PAD, 64 * 1024 * 1024);
#endif
  return threads;
}

}  // namespace attune
