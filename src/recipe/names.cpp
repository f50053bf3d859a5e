#include "recipe/names.h"

#include <algorithm>

#include "base/error.h"
#include "base/options.h"
#include "base/text.h"
#include "methods/registry.h"
#include "metrics/registry.h"
#include "objectives/registry.h"
#include "policies/registry.h"
#include "recipe/values.h"
#include "tasks/registry.h"

namespace attune {

std::string Named::where() const {
  const std::string place = whole.place().text();
  return place.empty() ? list : format("{}: {}", place, list);
}

Named read_named(const Node& node, const std::string& path) {
  constexpr std::string_view kForms =
      "a name, or one name with its options such as {lora: {rank: 8}}";
  if (node.is_scalar() && !node.text().empty())
    return {node.text(), Node::null(node.place()), path, node};
  if (!node.is_map() || node.entries().size() != 1) wrong_value(node, path, kForms);
  const auto& [name, options] = node.entries().front();
  if (!options.is_map() && !options.is_null())
    wrong_value(options, path + "." + name, "a mapping of options");
  return {name, options.is_null() ? Node::null(node.place()) : options, path, node};
}

std::vector<Named> read_named_list(const Node& node, const std::string& path) {
  if (node.is_null() || (node.is_scalar() && node.text() == "none")) return {};
  if (!node.is_list()) return {read_named(node, path)};
  std::vector<Named> result;
  for (size_t i = 0; i < node.items().size(); ++i)
    result.push_back(read_named(node.items()[i], format("{}[{}]", path, i)));
  return result;
}

namespace {

[[noreturn]] void unknown(const Node& node, std::string_view path, std::string_view what,
                          const std::string& name, const std::vector<std::string>& known) {
  const std::string place = node.place().text();
  fail(ErrorCode::BadInput, "{}{}{}: there is no {} \"{}\";{}", place, place.empty() ? "" : ": ",
       path, what, name, suggestion(name, known));
}

template <class T>
NamedOptions checked(const Registry<T>& registry, std::string_view what, const Named& named) {
  const Entry<T>* entry = registry.find(named.name);
  if (entry == nullptr) unknown(named.whole, named.list, what, named.name, registry.names());
  const Options options(entry->options, named.options, named.list + "." + named.name);
  return {named.name, options.to_json(), named.where()};
}

template <class T>
std::vector<NamedOptions> all_checked(const Registry<T>& registry, std::string_view what,
                                      const std::vector<Named>& named) {
  std::vector<NamedOptions> result;
  for (const Named& one : named) result.push_back(checked(registry, what, one));
  return result;
}

std::string registered_name(const std::string& name) {
  return name == "bitfit" ? "bias" : name;  // the paper's name for training the biases
}

}  // namespace

std::vector<NamedOptions> checked_methods(const Node& node) {
  std::vector<Named> named = read_named_list(node, "methods");
  for (Named& one : named) one.name = registered_name(one.name);
  return all_checked(methods(), "method", named);
}

std::vector<NamedOptions> checked_policies(const Node& node) {
  return all_checked(policies(), "policy", read_named_list(node, "policies"));
}

NamedOptions checked_objective(const Node& node) {
  const Named named = read_named(node, "objective");
  if (named.name == "auto") return {"auto", Json::object(), named.where()};
  return checked(objectives(), "objective", named);
}

std::map<std::string, double> checked_rates(const Node& node, const std::string& path) {
  const Registry<Tuner> known = methods();
  std::map<std::string, double> rates;
  for (const auto& [written, value] : node.entries()) {
    const std::string at = path + "." + written, name = registered_name(written);
    if (known.find(name) == nullptr) unknown(value, at, "method", name, known.names());
    const double rate = value.as_number(at);
    if (!(rate > 0 && rate <= 1000))
      fail(ErrorCode::BadInput, "{}{}{}: {} is outside (0, 1000]", value.place().text(),
           value.place().text().empty() ? "" : ": ", at, value.shown());
    rates[name] = rate;
  }
  return rates;
}

void check_task(const std::string& task, const Node& node) {
  const Registry<Task> registry = tasks();
  if (registry.find(task) == nullptr) unknown(node, "task", "task", task, registry.names());
}

void check_metric(const std::string& metric, const Node& node) {
  if (metric.empty() || metric == "auto" || find_metric(metric) != nullptr) return;
  std::vector<std::string> names;
  for (const MetricInfo& info : metrics()) names.push_back(info.name);
  unknown(node, "train.best", "metric", metric, names);
}

}  // namespace attune
