#include "policies/registry.h"

namespace attune {

#define POLICY(name) void register_##name(Registry<TrainingPolicy>& registry);
#include "policies/policies.def"
#undef POLICY

Registry<TrainingPolicy> policies() {
  Registry<TrainingPolicy> registry;
#define POLICY(name) register_##name(registry);
#include "policies/policies.def"
#undef POLICY
  return registry;
}

}  // namespace attune
