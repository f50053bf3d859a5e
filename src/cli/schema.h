#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace attune {

/// Every registered thing with its options, as the build wrote it down (dump_schema.cpp):
/// {"methods": [{name, summary, options: [{name, kind, default, range, help}], reference}, ...],
/// "archs", "tasks", "objectives", "policies", "metrics"}. JSON text; the front end holds it, so
/// that it can answer without loading the engine.
std::string_view option_schema_text();
/// The same, parsed.
const Json& option_schema();

/// Names of one kind ("methods"); empty when there is no such kind.
std::vector<std::string> schema_names(const std::string& kind);

/// What the program prints and its exit status.
struct Answer {
  std::string out, err;
  int status = 0;
};
/// The answer to a request that the schema knows (`attune methods lora`); empty for any other
/// command.
std::optional<Answer> schema_answer(const Json& request);

}  // namespace attune
