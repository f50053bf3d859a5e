#pragma once
#include "core/registry.h"
#include "tasks/task.h"

namespace attune {

/// Every task of tasks.def.
Registry<Task> tasks();

}  // namespace attune
