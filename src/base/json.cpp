#include "base/json.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"

namespace attune {

Json parse_json(std::string_view text, std::string_view where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    const size_t at = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const std::string_view before = text.substr(0, at);
    const int64_t line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t start = before.rfind('\n');
    const size_t column = at - (start == std::string_view::npos ? 0 : start + 1) + 1;
    fail(ErrorCode::BadInput, "{}:{}:{}: not valid JSON: {}", where, line, column, error.what());
  }
}

Json read_json(const std::string& path) {
  const std::string text = read_file(path);
  try {
    return parse_json(text, path);
  } catch (const Error& error) {
    throw Error(ErrorCode::Corrupt, error.what());
  }
}

}  // namespace attune
