// doctor.
#include "base/error.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace attune {

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
