// forward: activations at any site, logits, and gradients, for parity checks and features.
#include "base/error.h"
#include "base/text.h"
#include "cli/engine_commands.h"
#include "cli/engine_common.h"
#include "data/records.h"
#include "io/safetensors.h"
#include "recipe/forward_inputs.h"
#include "tensor/torch.h"

namespace attune {

int run_forward(const Json& args) {
  const std::string output = needed_arg(args, "output", "-o FILE"),
                    input = needed_arg(args, "input", "--input FILE");
  const std::unique_ptr<Target> target = target_of(args, false);
  std::vector<std::string> wanted;
  for (const std::string& item : list_arg(args, "want"))
    for (const std::string& part : split(item, ',')) wanted.push_back(part);
  if (wanted.empty()) wanted = {"logits"};
  const Dataset data = open_input(input);
  const NamedTensors tensors = forward_all(*target, data, wanted, flag_arg(args, "grad"));
  save_safetensors(output, tensors);
  answer(args, Json{{"output", output}, {"inputs", data.size()}, {"tensors", tensors.size()}},
         format("{} input(s), {} tensors in {}", data.size(), tensors.size(), output));
  return 0;
}

}  // namespace attune
