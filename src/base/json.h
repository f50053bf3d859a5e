#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace attune {

/// JSON that keeps the order of keys, so that files written back stay as they were.
using Json = nlohmann::ordered_json;

/// Parses JSON text; `where` (a file, or file:line) leads the error. Throws BadInput with line and
/// column.
Json parse_json(std::string_view text, std::string_view where);
/// Reads and parses a file. Throws NotFound, Corrupt.
Json read_json(const std::string& path);

}  // namespace attune
