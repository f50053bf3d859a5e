#include "arch/registry.h"

namespace attune {

#define ARCH(name) void register_##name(Registry<Architecture>& registry);
#include "arch/arch.def"
#undef ARCH

Registry<Architecture> architectures() {
  Registry<Architecture> registry;
#define ARCH(name) register_##name(registry);
#include "arch/arch.def"
#undef ARCH
  return registry;
}

}  // namespace attune
