#pragma once
#include <string>
#include <vector>

#include "nn/spec.h"

namespace attune {

/// Sets how a sequence head (or a bare body) pools; "pooler" also asks for the dense layer. Errors:
/// Unsupported, naming those that the family `offers`.
void set_pool(const ConfigReader& config, HeadSpec& head, const std::string& pool,
              const std::vector<std::string>& offers);

/// Refuses a head that a family does not have.
[[noreturn]] void refuse_head(const ConfigReader& config, const std::string& family,
                              const std::string& head);

}  // namespace attune
