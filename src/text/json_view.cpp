#include "text/json_view.h"

#include "base/error.h"

namespace attune {

std::string JsonView::where() const {
  return path_.empty() ? file_ : file_ + ": " + path_;
}

void JsonView::wrong(const char* expected) const {
  std::string found = value_->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (found.size() > 40) found = found.substr(0, 37) + "...";
  fail(ErrorCode::Corrupt, "{}: expected {}, found {}", where(), expected, found);
}

bool JsonView::has(std::string_view key) const {
  if (!value_->is_object()) return false;
  const nlohmann::json::const_iterator found = value_->find(std::string(key));
  return found != value_->end() && !found->is_null();
}

JsonView JsonView::at(std::string_view key) const {
  if (!value_->is_object()) wrong("an object");
  const nlohmann::json::const_iterator found = value_->find(std::string(key));
  if (found == value_->end()) fail(ErrorCode::Corrupt, "{}: key \"{}\" is missing", where(), key);
  return {*found, file_, path_.empty() ? std::string(key) : path_ + "." + std::string(key)};
}

std::vector<JsonView> JsonView::items() const {
  if (!value_->is_array()) wrong("a list");
  std::vector<JsonView> out;
  for (size_t i = 0; i < value_->size(); ++i) {
    out.push_back({(*value_)[i], file_, path_ + "[" + std::to_string(i) + "]"});
  }
  return out;
}

std::vector<std::pair<std::string, JsonView>> JsonView::entries() const {
  if (!value_->is_object()) wrong("an object");
  std::vector<std::pair<std::string, JsonView>> out;
  for (const auto& [key, value] : value_->items()) {
    out.emplace_back(key, JsonView(value, file_, path_.empty() ? key : path_ + "." + key));
  }
  return out;
}

std::string JsonView::as_string() const {
  if (!value_->is_string()) wrong("a string");
  return value_->get<std::string>();
}

bool JsonView::as_bool() const {
  if (!value_->is_boolean()) wrong("true or false");
  return value_->get<bool>();
}

int64_t JsonView::as_int() const {
  if (!value_->is_number_integer()) wrong("an integer");
  return value_->get<int64_t>();
}

bool JsonView::flag(std::string_view key, bool fallback) const {
  return has(key) ? at(key).as_bool() : fallback;
}

std::string JsonView::text(std::string_view key, std::string_view fallback) const {
  return has(key) ? at(key).as_string() : std::string(fallback);
}

}  // namespace attune
