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

kernels::Activation ConfigReader::activation(const char* key, const std::string& fallback) const {
  using kernels::Activation;
  static const std::map<std::string, Activation> kNames{{"gelu", Activation::Gelu},
                                                        {"gelu_new", Activation::GeluTanh},
                                                        {"gelu_pytorch_tanh", Activation::GeluTanh},
                                                        {"gelu_fast", Activation::GeluTanh},
                                                        {"quick_gelu", Activation::QuickGelu},
                                                        {"silu", Activation::Silu},
                                                        {"swish", Activation::Silu},
                                                        {"relu", Activation::Relu},
                                                        {"tanh", Activation::Tanh}};
  const std::string name = text(key, fallback);
  const std::map<std::string, Activation>::const_iterator found = kNames.find(name);
  if (found != kNames.end()) return found->second;
  std::vector<std::string> known;
  for (const std::pair<const std::string, Activation>& entry : kNames) known.push_back(entry.first);
  fail(ErrorCode::Unsupported, "{}: {} is \"{}\";{}", path_, key, name, suggestion(name, known));
}

}  // namespace attune
