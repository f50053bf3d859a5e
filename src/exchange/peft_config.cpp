#include "exchange/peft_config.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "exchange/regex.h"

namespace attune {

bool PeftConfig::given(const char* field) const {
  return json_.contains(field) && !at(field).is_null();
}

bool PeftConfig::is_text(const char* field) const {
  return given(field) && at(field).is_string();
}

void PeftConfig::wrong(const char* field) const {
  fail(ErrorCode::Corrupt, "{}: \"{}\" is {}, which is not what PEFT writes there", path_, field,
       at(field).dump());
}

void PeftConfig::refuse(const char* field, const std::string& why) const {
  fail(ErrorCode::Unsupported, "{}: \"{}\" is {}; {}", path_, field,
       json_.contains(field) ? at(field).dump() : "missing", why);
}

bool PeftConfig::flag(const char* field, bool fallback) const {
  if (!given(field)) return fallback;
  if (!at(field).is_boolean()) wrong(field);
  return at(field).get<bool>();
}

int64_t PeftConfig::integer(const char* field, int64_t fallback) const {
  if (!given(field)) return fallback;
  if (!at(field).is_number_integer()) wrong(field);
  return at(field).get<int64_t>();
}

int64_t PeftConfig::positive(const char* field, int64_t fallback) const {
  const int64_t value = integer(field, fallback);
  if (value < 1) wrong(field);
  return value;
}

double PeftConfig::number(const char* field, double fallback) const {
  if (!given(field)) return fallback;
  if (!at(field).is_number()) wrong(field);
  return at(field).get<double>();
}

std::string PeftConfig::text(const char* field, const std::string& fallback) const {
  if (!given(field)) return fallback;
  if (!at(field).is_string()) wrong(field);
  return at(field).get<std::string>();
}

std::vector<std::string> PeftConfig::texts(const char* field) const {
  if (!given(field)) return {};
  if (is_text(field)) return {text(field, "")};
  if (!at(field).is_array()) wrong(field);
  std::vector<std::string> result;
  for (const Json& value : at(field)) {
    if (!value.is_string()) wrong(field);
    result.push_back(value.get<std::string>());
  }
  return result;
}

std::vector<int64_t> PeftConfig::integers(const char* field) const {
  if (!given(field)) return {};
  if (at(field).is_number_integer()) return {at(field).get<int64_t>()};
  if (!at(field).is_array()) wrong(field);
  std::vector<int64_t> result;
  for (const Json& value : at(field)) {
    if (!value.is_number_integer()) wrong(field);
    result.push_back(value.get<int64_t>());
  }
  return result;
}

std::vector<std::pair<std::string, Json>> PeftConfig::entries(const char* field) const {
  std::vector<std::pair<std::string, Json>> result;
  if (!given(field)) return result;
  if (!at(field).is_object()) wrong(field);
  for (Json::const_iterator it = at(field).begin(); it != at(field).end(); ++it)
    result.emplace_back(it.key(), *it);
  return result;
}

double PeftConfig::by_pattern(const char* field, const std::string& module, double fallback,
                              Match match) const {
  const std::string where = path_ + ": " + field;
  for (const std::pair<std::string, Json>& entry : entries(field)) {
    if (!entry.second.is_number()) wrong(field);
    const bool hit =
        match == Match::WholeOrTail
            ? regex_full_match("(?:.*\\.)?(?:" + entry.first + ")", module, where)
            : regex_prefix_match(".*\\." + entry.first + "$", module, "", where).has_value();
    if (hit) return entry.second.get<double>();
  }
  return fallback;
}

namespace {

/// A value that says "not used".
bool is_off(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         (value.is_string() && value.get<std::string>().empty()) ||
         (value.is_structured() && value.empty());
}

bool names_module(const std::vector<std::string>& names, const std::string& module) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return module == name || ends_with(module, "." + name);
  });
}

}  // namespace

void PeftConfig::refuse_unknown(const std::vector<std::string>& known) const {
  for (Json::const_iterator it = json_.begin(); it != json_.end(); ++it) {
    if (std::count(known.begin(), known.end(), it.key()) > 0 || is_off(*it)) continue;
    refuse(it.key().c_str(),
           format("this build computes {} without it, so the outputs would differ. Merge the "
                  "adapter in PEFT (merge_and_unload) and use the merged model",
                  text("peft_type", "the adapter")));
  }
}

PeftTargets::PeftTargets(const PeftConfig& config)
    : config_(config),
      path_(config.path()),
      exclude_names_(config.texts("exclude_modules")),
      saved_(config.texts("modules_to_save")),
      layer_patterns_(config.texts("layers_pattern")),
      layers_(config.integers("layers_to_transform")) {
  if (config.is_text("target_modules")) {
    expression_ = config.text("target_modules", "");
    all_linear_ = lowered(expression_) == "all-linear";
  } else {
    names_ = config.texts("target_modules");
  }
  if (config.is_text("exclude_modules")) {
    exclude_expression_ = exclude_names_.front();
    exclude_names_.clear();
  }
}

bool PeftTargets::excluded(const std::string& module) const {
  if (!exclude_expression_.empty() &&
      regex_full_match(exclude_expression_, module, path_ + ": exclude_modules"))
    return true;
  return names_module(exclude_names_, module) || saved(module);
}

std::vector<int64_t> PeftTargets::token_rows(const std::string& module) const {
  const char* field = "trainable_token_indices";
  if (!config_.given(field) || config_.json().at(field).is_array()) return config_.integers(field);
  for (const std::pair<std::string, Json>& entry : config_.entries(field))
    if (names_module({entry.first}, module))
      return PeftConfig(Json{{field, entry.second}}, path_).integers(field);
  return {};
}

bool PeftTargets::saved(const std::string& module) const {
  return std::any_of(saved_.begin(), saved_.end(), [&](const std::string& name) {
    return regex_prefix_match("(?:^|.*\\.)" + name + "($|\\..*)", module, "",
                              path_ + ": modules_to_save")
        .has_value();
  });
}

bool PeftTargets::in_layers(const std::string& module) const {
  if (layers_.empty()) return true;
  std::optional<std::string> index;
  if (layer_patterns_.empty())
    index = regex_prefix_match(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", module, "idx", path_);
  for (size_t i = 0; i < layer_patterns_.size() && !index; ++i)
    index = regex_prefix_match("(?:^|.*?\\.)" + layer_patterns_[i] + "\\.(?P<idx>\\d+)\\.", module,
                               "idx", path_ + ": layers_pattern");
  return index && index->size() < 10 &&
         std::count(layers_.begin(), layers_.end(), std::stoll(*index)) > 0;
}

bool PeftTargets::contain(const std::string& module) const {
  if (excluded(module)) return false;
  if (all_linear_) return true;
  if (!expression_.empty())
    return regex_full_match(expression_, module, path_ + ": target_modules");
  if (std::count(names_.begin(), names_.end(), module) > 0) return true;
  return names_module(names_, module) && in_layers(module);
}

}  // namespace attune
