#include "tensor/compat.h"

#include <torch/csrc/api/include/torch/version.h>

namespace attune {

std::string libtorch_version() {
  return TORCH_VERSION;
}

}  // namespace attune
