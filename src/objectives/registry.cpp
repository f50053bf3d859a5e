#include "objectives/registry.h"

namespace attune {

#define OBJECTIVE(name) void register_##name(Registry<Objective>& registry);
#include "objectives/objectives.def"
#undef OBJECTIVE

Registry<Objective> objectives() {
  Registry<Objective> registry;
#define OBJECTIVE(name) register_##name(registry);
#include "objectives/objectives.def"
#undef OBJECTIVE
  return registry;
}

}  // namespace attune
