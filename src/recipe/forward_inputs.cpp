#include "recipe/forward_inputs.h"

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"
#include "kernels/ops/rowwise.h"
#include "nn/transformer.h"
#include "tensor/autograd.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {

namespace {

std::vector<int32_t> narrow(const std::vector<int64_t>& values) {
  return {values.begin(), values.end()};
}

Batch input_of(const Target& target, const Record& record) {
  std::vector<int32_t> ids, types;
  if (has_column(record, "input_ids")) {
    ids = narrow(integers_of(record, "input_ids"));
    if (has_column(record, "token_type_ids")) types = narrow(integers_of(record, "token_type_ids"));
  } else if (has_column(record, "text")) {
    if (target.tokenizer == nullptr)
      fail(ErrorCode::NotFound, "{}: \"text\" needs a tokenizer, and {} has none; give input_ids",
           record.where(), target.base_directory);
    const Encoding encoding =
        has_column(record, "text_pair")
            ? target.tokenizer->encode_pair(text_of(record, "text"), text_of(record, "text_pair"))
            : target.tokenizer->encode(text_of(record, "text"));
    ids = encoding.ids;
    types = encoding.type_ids;
  } else {
    fail(ErrorCode::BadInput, "{}: a line needs \"input_ids\" or \"text\"", record.where());
  }
  if (types.empty()) types.assign(ids.size(), 0);
  if (ids.empty() || types.size() != ids.size())
    fail(ErrorCode::BadInput,
         "{}: {} input_ids and {} token_type_ids; both need the same, positive number",
         record.where(), ids.size(), types.size());
  Batch batch;
  Stream& stream = batch.streams["enc"];
  stream.rows = RowIndex::from_lengths({static_cast<int64_t>(ids.size())});
  stream.ids = int32_tensor(ids);
  stream.types = int32_tensor(types);
  return batch;
}

Tensor plain(const Tensor& x) {
  const Tensor value = x.detach();
  return (value.scalar_type() == at::kDouble ? value : value.to(at::kFloat)).contiguous().clone();
}

/// The loss that transformers' head class defines for the labels of a line.
Tensor loss_of(const Tensor& logits, HeadKind kind, const Record& record) {
  const Json& labels = column(record, "labels");
  if (kind == HeadKind::Sequence) {
    const bool floats = labels.is_array() || logits.size(1) == 1;
    if (floats) {
      std::vector<double> values;
      for (const Json& value : labels.is_array() ? labels : Json::array({labels}))
        values.push_back(value.get<double>());
      const Tensor target = at::tensor(values, at::kDouble),
                   z = logits.to(at::kDouble).reshape({-1});
      if (z.numel() != target.numel())
        fail(ErrorCode::BadInput, "{}: {} labels for {} outputs", record.where(), target.numel(),
             z.numel());
      if (z.numel() == 1) return (z - target).square().mean();
      return (z.clamp_min(0) - z * target + (-z.abs()).exp().log1p()).mean();
    }
  }
  const std::vector<int64_t> ids = labels.is_array() ? integers_of(record, "labels")
                                                     : std::vector<int64_t>{labels.get<int64_t>()};
  if (static_cast<int64_t>(ids.size()) != logits.size(0))
    fail(ErrorCode::BadInput, "{}: {} labels for {} rows", record.where(), ids.size(),
         logits.size(0));
  for (const int64_t id : ids)
    if (id != -100 && (id < 0 || id >= logits.size(1)))
      fail(ErrorCode::BadInput, "{}: label {} is outside the {} classes of the head",
           record.where(), id, logits.size(1));
  const CrossEntropy loss = cross_entropy(logits, int64_tensor(ids), Tensor(), 0);
  return loss.sum / std::max(loss.count, 1.0);
}

/// Adds N/loss and N/grad/NAME.
void add_gradients(Target& target, const Record& record, const Batch& batch,
                   const std::string& prefix, NamedTensors& out) {
  const Transformer& transformer = dynamic_cast<const Transformer&>(target.model());
  target.adaptation->add("gradients", {"full", Json::object()});
  const std::vector<Param> params = target.adaptation->trainable();
  const Output output = target.model().forward(batch, {});
  const Tensor loss = loss_of(output.head->logits(Tensor()), transformer.spec().head.kind, record);
  backward(loss);
  out.emplace_back(prefix + "loss", loss.detach().to(target.model().numerics().master()));
  for (const Param& param : params) {
    const bool weight = ends_with(param.name, "/weight");
    const std::vector<std::string> parts = split(param.name, '/');
    if (parts.size() < 3 || parts[0] != "gradients" || !param.value.grad().defined()) continue;
    const WeightSlot& slot = target.model().slot(target.model().site(parts[2]));
    out.emplace_back(prefix + "grad/" + (weight ? slot.weight_name : slot.bias_name),
                     plain(param.value.grad()));
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
        out.emplace_back(prefix + entry.first, plain(entry.second));
      if (logits && output.head != nullptr) {
        const Tensor values = output.head->logits(Tensor());
        const bool sequence =
            dynamic_cast<const Transformer&>(target.model()).spec().head.kind == HeadKind::Sequence;
        out.emplace_back(prefix + "logits", plain(sequence ? values.reshape({-1}) : values));
      } else if (logits && want.sites.empty()) {
        fail(ErrorCode::BadInput, "{} has no head, so no logits; ask for sites, as in --want final",
             target.base_directory);
      }
    }
    if (gradients && has_column(record, "labels"))
      add_gradients(target, record, batch, prefix, out);
  }
  return out;
}

}  // namespace attune
