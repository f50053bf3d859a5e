#include "data/columns.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

const Json* find_column(const Record& record, const std::string& name) {
  const Json& value = record.value;
  const Json::const_iterator direct = value.find(name);
  if (direct != value.end()) return &*direct;
  const Json* place = &value;
  for (const std::string& key : split(name, '.')) {
    if (!place->is_object()) return nullptr;
    const Json::const_iterator next = place->find(key);
    if (next == place->end()) return nullptr;
    place = &*next;
  }
  return place;
}

[[noreturn]] void fail_kind(const Record& record, const std::string& name, const char* expected,
                            const Json& found) {
  fail(ErrorCode::BadInput, "{}: column \"{}\": expected {}, found {}", record.where(), name,
       expected, describe(found));
}

}  // namespace

std::string describe(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case Json::value_t::array:
      return format("a list of {}", value.size());
    case Json::value_t::object:
      return "an object";
    case Json::value_t::string: {
      const std::string& text = value.get_ref<const std::string&>();
      return text.size() <= 40 ? format("\"{}\"", text) : format("text of {} bytes", text.size());
    }
    default:
      return format("the number {}", value.dump());
  }
}

const Json& column(const Record& record, const std::string& name) {
  if (const Json* found = find_column(record, name)) return *found;
  std::vector<std::string> known;
  for (Json::const_iterator entry = record.value.begin(); entry != record.value.end(); ++entry)
    known.push_back(entry.key());
  std::string hint = "; data.columns says which is which, as {text: body, label: topic}";
  for (const std::string& near : nearest(name, known, 1))
    if (edit_distance(name, near) <= 2) hint = format("; did you mean \"{}\"?", near);
  fail(ErrorCode::BadInput, "{}: no column \"{}\"; the record has: {}{}", record.where(), name,
       join(known, ", "), hint);
}

bool has_column(const Record& record, const std::string& name) {
  const Json* found = find_column(record, name);
  return found && !found->is_null();
}

std::string text_of(const Record& record, const std::string& name, bool numbers) {
  const Json& value = column(record, name);
  if (value.is_string()) return value.get<std::string>();
  if (numbers && value.is_number()) return value.dump();
  fail_kind(record, name, numbers ? "text or a number" : "text", value);
}

double number_of(const Record& record, const std::string& name) {
  const Json& value = column(record, name);
  double number = 0;
  if (value.is_number()) {
    number = value.get<double>();
  } else if (value.is_string()) {
    const std::string_view text = trim(value.get_ref<const std::string&>());
    const std::from_chars_result result =
        std::from_chars(text.data(), text.data() + text.size(), number);
    if (result.ec != std::errc() || result.ptr != text.data() + text.size())
      fail_kind(record, name, "a number", value);
  } else {
    fail_kind(record, name, "a number", value);
  }
  if (!std::isfinite(number)) fail_kind(record, name, "a finite number", value);
  return number;
}

std::vector<std::string> strings_of(const Record& record, const std::string& name) {
  const Json& value = column(record, name);
  if (!value.is_array()) fail_kind(record, name, "a list of texts", value);
  std::vector<std::string> result;
  result.reserve(value.size());
  for (const Json& item : value) {
    if (!item.is_string())
      fail(ErrorCode::BadInput,
           "{}: column \"{}\": expected a list of texts, found {} at position {}", record.where(),
           name, describe(item), result.size());
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::vector<int64_t> integers_of(const Record& record, const std::string& name) {
  const Json& value = column(record, name);
  if (!value.is_array()) fail_kind(record, name, "a list of whole numbers", value);
  std::vector<int64_t> result;
  result.reserve(value.size());
  for (const Json& item : value) {
    if (!item.is_number_integer())
      fail(ErrorCode::BadInput,
           "{}: column \"{}\": expected a list of whole numbers, found {} at position {}",
           record.where(), name, describe(item), result.size());
    result.push_back(item.get<int64_t>());
  }
  return result;
}

}  // namespace attune
