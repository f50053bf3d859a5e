#include "recipe/verify.h"

#include "base/error.h"
#include "base/text.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {

namespace {

/// Three sequences of token ids spread over the vocabulary.
Batch probe_batch(const Model& model) {
  const Site& table = model.site("enc.embed.tok");
  const std::vector<int64_t> lengths{1, 5, 9};
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < 15; ++i) ids.push_back(static_cast<int32_t>((i * 7919 + 3) % table.in));
  Batch batch;
  Stream& stream = batch.streams["enc"];
  stream.rows = RowIndex::from_lengths(lengths);
  stream.ids = int32_tensor(ids);
  return batch;
}

double distance(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).abs() / (1 + y.abs())).max().item<double>();
}

}  // namespace

double verify_export(Target& source, const TargetRequest& written) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Target> back = open_target(written);
  const Batch batch = probe_batch(source.model());
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
