#include "methods/registry.h"

namespace attune {

#define METHOD(name) void register_##name(Registry<Tuner>& registry);
#include "methods/methods.def"
#undef METHOD

Registry<Tuner> methods() {
  Registry<Tuner> registry;
#define METHOD(name) register_##name(registry);
#include "methods/methods.def"
#undef METHOD
  return registry;
}

}  // namespace attune
