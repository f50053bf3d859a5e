#pragma once

namespace attune {

/// Sets how many threads the kernels and LibTorch use (0: all that this process may, see
/// base/threads.h), and keeps freed memory for the next tensors (tensor/memory.h, and malloc's
/// thresholds for the rest): giving pages back after each step and faulting them in again costs
/// more than many kernels. Returns the number of threads.
int start_threads(int asked);

}  // namespace attune
