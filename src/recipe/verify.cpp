#include "recipe/verify.h"

#include "base/error.h"
#include "base/text.h"
#include "nn/transformer.h"
#include "tensor/torch.h"

namespace attune {

namespace {

double distance(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).abs() / (1 + y.abs())).max().item<double>();
}

}  // namespace

double verify_export(Target& source, const TargetRequest& written) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Target> back = open_target(written);
  const Transformer& model = dynamic_cast<const Transformer&>(source.model());
  const Batch batch = made_up_batch(model.spec(), {1, 5, 9}, 1);
  const Output before = source.model().forward(batch, {{"final"}, true});
  const Output after = back->model().forward(batch, {{"final"}, true});
  double error = distance(after.captured.at("final"), before.captured.at("final"));
  if (before.head != nullptr && after.head != nullptr) {
    const Tensor a = after.head->logits(Tensor()), b = before.head->logits(Tensor());
    if (a.sizes() == b.sizes()) error = std::max(error, distance(a, b));
  }
  if (!(error <= 1e-4))
    fail(ErrorCode::ProofFailed,
         "reading the export back: its outputs differ from the run's by {:.2g} (allowed 1e-4); it "
         "was "
         "not kept",
         error);
  return error;
}

}  // namespace attune
