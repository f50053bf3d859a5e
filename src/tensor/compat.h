#pragma once
#include <string>

namespace attune {

/// Version of the LibTorch this build was compiled against. Other differences between 1.13 and 2.x belong here too.
std::string libtorch_version();

}  // namespace attune
