// Run by the build: writes every registry's options as a C++ file that the front end is linked
// with. The file is left alone when nothing has changed, so that nothing is built again for it.
#include <cstdio>
#include <exception>

#include "arch/registry.h"
#include "base/file.h"
#include "base/text.h"
#include "methods/registry.h"
#include "metrics/registry.h"
#include "objectives/registry.h"
#include "policies/registry.h"
#include "tasks/registry.h"

namespace attune {

namespace {

template <class T>
Json entries_of(const Registry<T>& registry) {
  Json list = Json::array();
  for (const Entry<T>& entry : registry.all()) {
    Json options = Json::array();
    for (const Option& option : entry.options)
      options.push_back(Json{{"name", option.name},
                             {"kind", option.kind},
                             {"default", option.fallback},
                             {"range", option.range},
                             {"help", option.help}});
    list.push_back(Json{{"name", entry.name},
                        {"summary", entry.summary},
                        {"options", options},
                        {"reference", entry.reference}});
    if (entry.learning_rate <= 0) continue;
    list.back()["learning_rate"] = entry.learning_rate;
    list.back()["lr_auto"] = format("{:g}{}", entry.learning_rate,
                                    entry.rate_by_width ? " on rows 384 wide, less on wider" : "");
  }
  return list;
}

Json schema() {
  Json metric_list = Json::array();
  for (const MetricInfo& info : metrics())
    metric_list.push_back(Json{{"name", info.name},
                               {"summary", info.summary},
                               {"higher_is_better", info.higher_is_better},
                               {"reference", info.reference}});
  return Json{{"methods", entries_of(methods())},   {"archs", entries_of(architectures())},
              {"tasks", entries_of(tasks())},       {"objectives", entries_of(objectives())},
              {"policies", entries_of(policies())}, {"metrics", metric_list}};
}

/// Raw string literals of moderate length; the compiler joins them.
std::string source_of(const std::string& json) {
  constexpr size_t kPiece = 4096;
  std::string text =
      "// Written by the build from the registries.\n#include \"cli/schema.h\"\n\n"
      "namespace attune {\n\nstd::string_view option_schema_text() {\n  return\n";
  for (size_t at = 0; at < json.size(); at += kPiece)
    text += "      R\"schema(" + json.substr(at, kPiece) + ")schema\"\n";
  return text + "      ;\n}\n\n}  // namespace attune\n";
}

}  // namespace

}  // namespace attune

int main(int count, char** values) {
  try {
    if (count != 2) {
      std::fputs("usage: attune_dump_schema FILE.cpp\n", stderr);
      return 2;
    }
    const std::string text = attune::source_of(attune::schema().dump());
    const std::string path = values[1];
    if (!attune::file_exists(path) || attune::read_file(path) != text)
      attune::write_file_atomic(path, text);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "attune_dump_schema: %s\n", error.what());
    return 70;
  }
}
