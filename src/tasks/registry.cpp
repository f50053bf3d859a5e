#include "tasks/registry.h"

namespace attune {

#define TASK(name) void register_##name(Registry<Task>& registry);
#include "tasks/tasks.def"
#undef TASK

Registry<Task> tasks() {
  Registry<Task> registry;
#define TASK(name) register_##name(registry);
#include "tasks/tasks.def"
#undef TASK
  return registry;
}

}  // namespace attune
