#include "nn/spec.h"

#include <map>

#include "base/error.h"
#include "base/text.h"

namespace attune {

bool ConfigReader::has(const char* key) const {
  return config_.contains(key) && !config_.at(key).is_null();
}

int64_t ConfigReader::integer(const char* key) const {
  if (!has(key))
    fail(ErrorCode::Corrupt, "{}: the key \"{}\" is missing; it is required for this model_type",
         path_, key);
  const int64_t value = integer(key, 0);
  if (value <= 0)
    fail(ErrorCode::Corrupt, "{}: {} is {}; a positive number was expected", path_, key, value);
  return value;
}

int64_t ConfigReader::integer(const char* key, int64_t fallback) const {
  if (!has(key)) return fallback;
  if (!config_.at(key).is_number_integer())
    fail(ErrorCode::Corrupt, "{}: {} is {}; an integer was expected", path_, key,
         config_.at(key).dump());
  return config_.at(key).get<int64_t>();
}

double ConfigReader::number(const char* key) const {
  if (!has(key))
    fail(ErrorCode::Corrupt, "{}: the key \"{}\" is missing; a number was expected", path_, key);
  return number(key, 0);
}

double ConfigReader::number(const char* key, double fallback) const {
  if (!has(key)) return fallback;
  if (!config_.at(key).is_number())
    fail(ErrorCode::Corrupt, "{}: {} is {}; a number was expected", path_, key,
         config_.at(key).dump());
  return config_.at(key).get<double>();
}

std::string ConfigReader::text(const char* key, const std::string& fallback) const {
  if (!has(key)) return fallback;
  if (!config_.at(key).is_string())
    fail(ErrorCode::Corrupt, "{}: {} is {}; text was expected", path_, key, config_.at(key).dump());
  return config_.at(key).get<std::string>();
}

bool ConfigReader::boolean(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  if (!config_.at(key).is_boolean())
    fail(ErrorCode::Corrupt, "{}: {} is {}; true or false was expected", path_, key,
         config_.at(key).dump());
  return config_.at(key).get<bool>();
}

std::vector<double> ConfigReader::numbers(const char* key, int64_t count) const {
  std::vector<double> values;
  if (has(key) && config_.at(key).is_array())
    for (const Json& value : config_.at(key))
      if (value.is_number()) values.push_back(value.get<double>());
  if (static_cast<int64_t>(values.size()) != count)
    fail(ErrorCode::Corrupt, "{}: {} is {}; a list of {} numbers was expected", path_, key,
         has(key) ? config_.at(key).dump() : "missing", count);
  return values;
}

std::pair<int64_t, int64_t> ConfigReader::sizes(const char* key, int64_t fallback) const {
  if (has(key) && config_.at(key).is_array()) {
    const std::vector<double> both = numbers(key, 2);
    return {static_cast<int64_t>(both[0]), static_cast<int64_t>(both[1])};
  }
  const int64_t one = integer(key, fallback);
  return {one, one};
}

ConfigReader ConfigReader::inner(const char* key) const {
  if (!has(key) || !config_.at(key).is_object())
    fail(ErrorCode::Corrupt, "{}: {} is {}; an object was expected", path_, key,
         has(key) ? config_.at(key).dump() : "missing");
  return ConfigReader(config_.at(key), path_ + ": " + key);
}

std::string ConfigReader::model_class() const {
  if (!has("architectures") || !config_.at("architectures").is_array() ||
      config_.at("architectures").empty() || !config_.at("architectures")[0].is_string())
    return "";
  return config_.at("architectures")[0].get<std::string>();
}

kernels::Activation ConfigReader::activation(const char* key, const std::string& fallback) const {
  return activation_named(text(key, fallback), key);
}

kernels::Activation ConfigReader::activation_named(const std::string& name, const char* key) const {
  using kernels::Activation;
  static const std::map<std::string, Activation> kNames{{"gelu", Activation::Gelu},
                                                        {"gelu_new", Activation::GeluTanh},
                                                        {"gelu_pytorch_tanh", Activation::GeluTanh},
                                                        {"gelu_fast", Activation::GeluTanh},
                                                        {"gelu_python", Activation::Gelu},
                                                        {"gelu_python_tanh", Activation::GeluTanh},
                                                        {"gelu_accurate", Activation::GeluTanh},
                                                        {"quick_gelu", Activation::QuickGelu},
                                                        {"silu", Activation::Silu},
                                                        {"swish", Activation::Silu},
                                                        {"relu", Activation::Relu},
                                                        {"tanh", Activation::Tanh},
                                                        {"sigmoid", Activation::Sigmoid},
                                                        {"linear", Activation::Identity}};
  const std::map<std::string, Activation>::const_iterator found = kNames.find(name);
  if (found != kNames.end()) return found->second;
  std::vector<std::string> known;
  for (const std::pair<const std::string, Activation>& entry : kNames) known.push_back(entry.first);
  fail(ErrorCode::Unsupported, "{}: {} is \"{}\";{}", path_, key, name, suggestion(name, known));
}

}  // namespace attune
