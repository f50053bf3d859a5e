#pragma once
#include <cstddef>

namespace attune::kernels {

/// Where kernels take memory for one call that is too large to stay between calls: take gives
/// 64-byte aligned bytes or throws std::bad_alloc. The C library otherwise. Once, before the first
/// product.
void lend_memory(void* (*take)(size_t bytes), void (*give)(void* memory));

}  // namespace attune::kernels
