#include "recipe/forward_inputs.h"

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"
#include "nn/transformer.h"
#include "recipe/model_inputs.h"
#include "tensor/autograd.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {

namespace {

Tensor plain(const Tensor& x) {
  const Tensor value = x.detach();
  return (value.scalar_type() == at::kDouble ? value : value.to(at::kFloat)).contiguous().clone();
}

/// Adds N/loss and N/grad/NAME.
void add_gradients(Target& target, const Record& record, const Batch& batch,
                   const std::string& prefix, NamedTensors& out) {
  target.adaptation->add("gradients", {"full", Json::object()});
  const std::vector<Param> params = target.adaptation->trainable();
  const Output output = target.model().forward(batch, {});
  const Tensor loss = loss_of(target, record, output.head->logits(Tensor()));
  if (!loss.defined()) {
    target.adaptation->remove("gradients");
    return;
  }
  backward(loss);
  out.emplace_back(prefix + "loss", loss.detach().to(target.model().numerics().master()));
  for (const Param& param : params) {
    const bool weight = ends_with(param.name, "/weight");
    const std::vector<std::string> parts = split(param.name, '/');
    if (parts.size() < 3 || parts[0] != "gradients" || !param.value.grad().defined()) continue;
    const WeightSlot& slot = target.model().slot(target.model().site(parts[2]));
    const Tensor gradient = plain(gradient_of(param.value));
    out.emplace_back(prefix + "grad/" + (weight ? slot.weight_name : slot.bias_name),
                     weight ? slot.as_stored(gradient) : gradient);
  }
  target.adaptation->remove("gradients");
}

}  // namespace

NamedTensors forward_all(Target& target, const Dataset& data,
                         const std::vector<std::string>& wanted, bool gradients) {
  Want want;
  bool logits = false;
  for (const std::string& name : wanted) {
    if (name == "logits") {
      logits = true;
    } else {
      want.sites.push_back(name);
    }
  }
  NamedTensors out;
  for (int64_t i = 0; i < data.size(); ++i) {
    const Record record = data.at(i);
    const Batch batch = input_of(target, record);
    const std::string prefix = format("{}/", i);
    {
      at::NoGradGuard no_grad;
      const Output output = target.model().forward(batch, want);
      for (const std::pair<const std::string, Tensor>& entry : output.captured)
        if (entry.first != "logits") out.emplace_back(prefix + entry.first, plain(entry.second));
      if ((logits || output.captured.count("logits") > 0) && output.head != nullptr) {
        const Tensor values = output.head->logits(Tensor());
        const bool sequence =
            dynamic_cast<const Transformer&>(target.model()).spec().head.kind == HeadKind::Sequence;
        out.emplace_back(prefix + "logits", plain(sequence ? values.reshape({-1}) : values));
      } else if (logits && want.sites.empty()) {
        fail(ErrorCode::BadInput, "{} has no head, so no logits; ask for sites, as in --want final",
             target.base_directory);
      }
    }
    if (gradients && (has_column(record, "labels") || has_column(record, "start_positions")))
      add_gradients(target, record, batch, prefix, out);
  }
  return out;
}

}  // namespace attune
