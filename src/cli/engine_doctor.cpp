// doctor.
#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include "kernels/self_check.h"

namespace attune {

namespace {

/// "MemTotal: 16384 kB" of /proc/meminfo, in bytes; 0 where the system does not say.
int64_t system_memory(std::string_view name) {
  if (!file_exists("/proc/meminfo")) return 0;
  const std::string text = read_file("/proc/meminfo");
  const size_t at = text.find(std::string(name) + ":");
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + name.size() + 1) * 1024;
}

/// What a container allows this process; 0: no limit.
int64_t memory_limit() {
  const char* const path = "/sys/fs/cgroup/memory.max";
  return file_exists(path) ? std::atoll(read_file(path).c_str()) : 0;  // "max" reads as 0
}

struct Memory {
  int64_t total = 0, available = 0;
};

Memory memory_of_machine() {
  Memory memory{system_memory("MemTotal"), system_memory("MemAvailable")};
  if (const int64_t limit = memory_limit(); limit > 0)
    memory = {std::min(memory.total, limit), std::min(memory.available, limit)};
  return memory;
}

}  // namespace

int run_doctor(const Json& args) {
  use_threads(args);
  const double seconds = 0.3;
  const bool bf16 = kernels::has_native_bf16();
  const double fp32_rate = kernels::measure_gemm(2048, 768, 768, kernels::DType::F32, seconds);
  const double bf16_rate =
      bf16 ? kernels::measure_gemm(2048, 768, 768, kernels::DType::BF16, seconds) : 0;
  const std::string implementation = kernels::last_gemm_implementation();
  const bool fast = implementation.find("ref") == std::string::npos;
  const std::vector<kernels::CheckedKernel> checked = kernels::self_check();
  Json kernel_list = Json::array();
  std::vector<std::string> wrong;
  double worst = 0;  // as a share of what is allowed
  for (const kernels::CheckedKernel& kernel : checked) {
    kernel_list.push_back(Json{{"kernel", kernel.name},
                               {"error", kernel.error},
                               {"allowed", kernel.allowed},
                               {"ok", kernel.ok()}});
    worst = std::max(worst, kernel.error / kernel.allowed);
    if (!kernel.ok())
      wrong.push_back(format("{} is off by {:.2g}, {:.0e} is allowed", kernel.name, kernel.error,
                             kernel.allowed));
  }
  const Memory memory = memory_of_machine();
  const Json object{{"threads", kernels::threads()},
                    {"memory_bytes", memory.total},
                    {"memory_available_bytes", memory.available},
                    {"instructions", kernels::isa_name(kernels::isa())},
                    {"native_bf16", bf16},
                    {"precision_auto", bf16 ? "bf16" : "fp32"},
                    {"gemm_fp32_gflops", fp32_rate},
                    {"gemm_bf16_gflops", bf16_rate},
                    {"gemm_implementation", implementation},
                    {"kernels", kernel_list},
                    {"ok", fast && wrong.empty()}};
  std::string text = format(
      "threads        {}\nmemory         {}, {} of it available\ninstructions   {}\nprecision auto "
      "{}\nGEMM fp32      {:.0f} GF/s\n",
      kernels::threads(), human_bytes(static_cast<double>(memory.total)),
      human_bytes(static_cast<double>(memory.available)), kernels::isa_name(kernels::isa()),
      bf16 ? "bf16" : "fp32", fp32_rate);
  if (bf16) text += format("GEMM bf16      {:.0f} GF/s\n", bf16_rate);
  text += format("oneDNN path    {}\n", implementation);
  text += format("kernels        {} of {} agree with double precision",
                 checked.size() - wrong.size(), checked.size());
  text += wrong.empty() ? format(", the worst at {:.0f} % of what is allowed", 100 * worst)
                        : ": " + join(wrong, "; ");
  answer(args, object, text);
  if (!wrong.empty())
    fail(ErrorCode::ProofFailed,
         "kernels differ from double precision: {}; runs on this machine would train wrongly. "
         "ATTUNE_ISA=avx2 (or ref) takes other kernels; please report it with `attune doctor "
         "--json`",
         join(wrong, "; "));
  if (!fast)
    fail(ErrorCode::ProofFailed,
         "matrix products run oneDNN's slow reference path ({}); is libdnnl2 intact?",
         implementation);
  return 0;
}

}  // namespace attune
