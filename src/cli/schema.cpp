// methods, archs, tasks, objectives, policies, metrics: answered from the embedded schema.
#include "cli/schema.h"

#include "base/text.h"

namespace attune {

namespace {

std::string string_of(const Json& entry, const char* key) {
  return entry.value(key, std::string());
}

std::string line_of(const Json& entry) {
  std::string text = format("{:<22} {}", string_of(entry, "name"), string_of(entry, "summary"));
  if (entry.contains("higher_is_better"))
    text += entry["higher_is_better"].get<bool>() ? " (higher is better)" : " (lower is better)";
  return text;
}

std::string whole_text(const Json& entry) {
  std::string text = line_of(entry);
  for (const Json& option : entry.value("options", Json::array())) {
    const std::string range = string_of(option, "range");
    text += format("\n  {:<12} {:<8} default {:<16} {}{}", string_of(option, "name"),
                   string_of(option, "kind"), string_of(option, "default"),
                   string_of(option, "help"), range.empty() ? "" : " " + range);
  }
  const std::string reference = string_of(entry, "reference"), rate = string_of(entry, "lr_auto");
  if (!rate.empty()) text += "\n  lr: auto is " + rate;
  return text + (reference.empty() ? "" : "\n  reference: " + reference);
}

/// "methods" -> "method", "policies" -> "policy".
std::string singular(const std::string& kind) {
  if (ends_with(kind, "ies")) return kind.substr(0, kind.size() - 3) + "y";
  return kind.substr(0, kind.size() - 1);
}

}  // namespace

const Json& option_schema() {
  static const Json kSchema = parse_json(option_schema_text(), "the embedded schema");
  return kSchema;
}

std::vector<std::string> schema_names(const std::string& kind) {
  std::vector<std::string> names;
  if (!option_schema().contains(kind)) return names;
  for (const Json& entry : option_schema()[kind]) names.push_back(string_of(entry, "name"));
  return names;
}

std::optional<Answer> schema_answer(const Json& request) {
  const std::string kind = request.at("command").get<std::string>();
  if (!option_schema().contains(kind)) return std::nullopt;
  const Json& args = request.at("args");
  const bool json = args.value("json", false);
  const Json& all = option_schema()[kind];
  if (!args.contains("name") || args["name"].is_null()) {
    if (json) return Answer{Json{{kind, all}}.dump() + "\n", "", 0};
    std::string text;
    for (const Json& entry : all) text += line_of(entry) + "\n";
    return Answer{text, "", 0};
  }
  const std::string name = args["name"].get<std::string>();
  for (const Json& entry : all)
    if (entry["name"] == name)
      return Answer{(json ? entry.dump() : whole_text(entry)) + "\n", "", 0};
  return Answer{"",
                format("attune {}: bad input: there is no {} \"{}\";{}\n", kind, singular(kind),
                       name, suggestion(name, schema_names(kind))),
                2};
}

}  // namespace attune
