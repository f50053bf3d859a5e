// methods, archs, tasks, objectives, policies, metrics, doctor.
#include <algorithm>

#include "arch/registry.h"
#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "methods/registry.h"
#include "metrics/registry.h"
#include "objectives/registry.h"
#include "policies/registry.h"
#include "tasks/registry.h"

namespace attune {

namespace {

template <class T>
Json entry_json(const Entry<T>& entry) {
  Json options = Json::array();
  for (const Option& option : entry.options)
    options.push_back(Json{{"name", option.name},
                           {"kind", option.kind},
                           {"default", option.fallback},
                           {"range", option.range},
                           {"help", option.help}});
  return Json{{"name", entry.name},
              {"summary", entry.summary},
              {"options", options},
              {"reference", entry.reference}};
}

std::string entry_text(const Json& entry, bool whole) {
  std::string text =
      format("{:<22} {}", entry["name"].get<std::string>(), entry["summary"].get<std::string>());
  if (!whole) return text;
  for (const Json& option : entry["options"])
    text += format(
        "\n  {:<12} {:<8} default {:<16} {}{}", option["name"].get<std::string>(),
        option["kind"].get<std::string>(), option["default"].get<std::string>(),
        option["help"].get<std::string>(),
        option["range"].get<std::string>().empty() ? "" : " " + option["range"].get<std::string>());
  return text + "\n  reference: " + entry["reference"].get<std::string>();
}

template <class T>
int list_registry(const Json& args, const Registry<T>& registry) {
  const std::string name = text_arg(args, "name");
  if (!name.empty()) {
    const Json entry = entry_json(registry.at(name));
    answer(args, entry, entry_text(entry, true));
    return 0;
  }
  Json list = Json::array();
  std::vector<std::string> lines;
  for (const Entry<T>& entry : registry.all()) {
    list.push_back(entry_json(entry));
    lines.push_back(entry_text(list.back(), false));
  }
  answer(args, list, join(lines, "\n"));
  return 0;
}

}  // namespace

int run_methods(const Json& args) {
  return list_registry(args, methods());
}
int run_archs(const Json& args) {
  return list_registry(args, architectures());
}
int run_tasks(const Json& args) {
  return list_registry(args, tasks());
}
int run_objectives(const Json& args) {
  return list_registry(args, objectives());
}
int run_policies(const Json& args) {
  return list_registry(args, policies());
}

int run_metrics(const Json& args) {
  Json list = Json::array();
  std::vector<std::string> lines;
  const std::string name = text_arg(args, "name");
  for (const MetricInfo& info : metrics()) {
    if (!name.empty() && info.name != name) continue;
    list.push_back(Json{{"name", info.name},
                        {"summary", info.summary},
                        {"reference", info.reference},
                        {"higher_is_better", info.higher_is_better}});
    lines.push_back(format("{:<14} {} ({})", info.name, info.summary,
                           info.higher_is_better ? "higher is better" : "lower is better"));
  }
  if (list.empty())
    fail(ErrorCode::BadInput, "unknown metric \"{}\"; `attune metrics` lists them", name);
  answer(args, list, join(lines, "\n"));
  return 0;
}

int run_doctor(const Json& args) {
  use_threads(args);
  const double seconds = 0.3;
  const bool bf16 = kernels::has_native_bf16();
  const double fp32_rate = kernels::measure_gemm(2048, 768, 768, kernels::DType::F32, seconds);
  const double bf16_rate =
      bf16 ? kernels::measure_gemm(2048, 768, 768, kernels::DType::BF16, seconds) : 0;
  const std::string implementation = kernels::last_gemm_implementation();
  const bool healthy = implementation.find("ref") == std::string::npos;
  const Json object{{"threads", kernels::threads()},
                    {"instructions", kernels::isa_name(kernels::isa())},
                    {"native_bf16", bf16},
                    {"precision_auto", bf16 ? "bf16" : "fp32"},
                    {"gemm_fp32_gflops", fp32_rate},
                    {"gemm_bf16_gflops", bf16_rate},
                    {"gemm_implementation", implementation},
                    {"ok", healthy}};
  std::string text = format(
      "threads        {}\ninstructions   {}\nprecision auto {}\nGEMM fp32      {:.0f} GF/s\n",
      kernels::threads(), kernels::isa_name(kernels::isa()), bf16 ? "bf16" : "fp32", fp32_rate);
  if (bf16) text += format("GEMM bf16      {:.0f} GF/s\n", bf16_rate);
  text += format("oneDNN path    {}", implementation);
  answer(args, object, text);
  if (!healthy)
    fail(ErrorCode::ProofFailed,
         "matrix products run oneDNN's slow reference path ({}); is libdnnl2 intact?",
         implementation);
  return 0;
}

}  // namespace attune
