#include "recipe/model_inputs.h"

#include "base/error.h"
#include "base/text.h"
#include "data/columns.h"
#include "io/safetensors.h"
#include "kernels/ops/rowwise.h"
#include "nn/transformer.h"
#include "signal/image_processor.h"
#include "tasks/record_image.h"
#include "tensor/torch.h"

namespace attune {

namespace {

const ModelSpec& spec_of(const Target& target) {
  return dynamic_cast<const Transformer&>(*target.loaded.model).spec();
}

std::vector<int32_t> narrow(const std::vector<int64_t>& values) {
  return {values.begin(), values.end()};
}

Stream tokens_of(const Target& target, const Record& record) {
  std::vector<int32_t> ids, types;
  if (has_column(record, "input_ids")) {
    ids = narrow(integers_of(record, "input_ids"));
    if (has_column(record, "token_type_ids")) types = narrow(integers_of(record, "token_type_ids"));
  } else if (has_column(record, "text")) {
    target.check_text(record.where());
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
  Stream stream;
  stream.rows = RowIndex::from_lengths({static_cast<int64_t>(ids.size())});
  stream.ids = int32_tensor(ids);
  stream.types = int32_tensor(types);
  return stream;
}

/// The decoder's tokens; without rows when the model makes them from the encoder's.
Stream decoder_tokens(const Target& target, const Record& record) {
  const ModelSpec& spec = spec_of(target);
  Stream stream;
  if (has_column(record, "decoder_input_ids")) {
    stream.ids = int32_tensor(narrow(integers_of(record, "decoder_input_ids")));
    if (stream.ids.numel() == 0)
      fail(ErrorCode::BadInput, "{}: decoder_input_ids is empty", record.where());
  } else if (spec.head.kind == HeadKind::Lm && has_column(record, "labels")) {
    if (spec.decoder_start < 0)
      fail(ErrorCode::BadInput,
           "{}: the decoder's input is made from labels, but config.json has no "
           "decoder_start_token_id",
           record.where());
    const Tensor labels = int64_tensor(integers_of(record, "labels"));
    stream.ids = shifted_right(labels, RowIndex::from_lengths({labels.numel()}), spec.decoder_start,
                               spec.decoder_padding);
  } else if (spec.head.kind == HeadKind::Lm || spec.head.kind == HeadKind::None) {
    fail(ErrorCode::BadInput, "{}: an encoder-decoder needs \"decoder_input_ids\"{}",
         record.where(), spec.head.kind == HeadKind::Lm ? ", or \"labels\" to make them from" : "");
  } else {
    return stream;
  }
  stream.rows = RowIndex::from_lengths({stream.ids.numel()});
  return stream;
}

Tensor tensor_of_file(const Record& record, const std::string& name) {
  const SafetensorsFile file(file_of(record, "tensors"));
  if (!file.has(name))
    fail(ErrorCode::BadInput, "{}: {} holds no tensor \"{}\", which this model reads",
         record.where(), file.path(), name);
  return file.tensor(name);
}

/// Pixels [channels, height, width] as rows of patches: from the top, each by channel, row, column.
Tensor patches_of(const Record& record, const PatchSpec& spec, const Tensor& given) {
  const Tensor pixels = given.dim() == 4 && given.size(0) == 1 ? given.squeeze(0) : given;
  if (pixels.dim() != 3 || pixels.size(0) != spec.channels || pixels.size(1) != spec.height ||
      pixels.size(2) != spec.width)
    fail(ErrorCode::BadInput,
         "{}: pixel_values has shape [{}]; this model reads [{}, {}, {}] (channels, height, width)",
         record.where(), fmt::join(given.sizes(), ", "), spec.channels, spec.height, spec.width);
  return patch_rows(pixels, spec.patch_height, spec.patch_width);
}

Stream patches_stream(const Target& target, const Record& record) {
  const PatchSpec& spec = spec_of(target).first().patches;
  const at::ScalarType type = target.loaded.model->numerics().master();
  Stream stream;
  if (has_column(record, "image")) {
    const ImageProcessor processor = ImageProcessor::load(target.base_directory);
    stream.values = processor.patches(image_of(record, "image")).to(type);
  } else if (has_column(record, "tensors")) {
    stream.values = patches_of(record, spec, tensor_of_file(record, "pixel_values").to(type));
  } else {
    fail(ErrorCode::BadInput,
         "{}: a line needs \"image\", a PNG or JPEG file, or \"tensors\", a safetensors file that "
         "holds pixel_values",
         record.where());
  }
  stream.rows = RowIndex::from_lengths({stream.values.size(0)});
  return stream;
}

[[noreturn]] void wrong_label(const Record& record, const char* expected, const Json& found) {
  fail(ErrorCode::BadInput, "{}: column \"labels\": expected {}, found {}", record.where(),
       expected, describe(found));
}

/// Numbers as targets of a sequence's outputs: squared error, or binary cross-entropy.
Tensor loss_of_numbers(const Tensor& logits, const Record& record, bool squared) {
  const Json& labels = column(record, "labels");
  std::vector<double> values;
  for (const Json& value : labels.is_array() ? labels : Json::array({labels})) {
    if (!value.is_number()) wrong_label(record, "a number, or one for each output", value);
    values.push_back(value.get<double>());
  }
  const Tensor target = at::tensor(values, at::kDouble), z = logits.to(at::kDouble).reshape({-1});
  if (z.numel() != target.numel())
    fail(ErrorCode::BadInput, "{}: {} labels for {} outputs", record.where(), target.numel(),
         z.numel());
  if (squared) return (z - target).square().mean();
  return (z.clamp_min(0) - z * target + (-z.abs()).exp().log1p()).mean();
}

/// Mean cross-entropy of one class a row.
Tensor loss_of_classes(const Tensor& logits, const Record& record, std::vector<int64_t> ids,
                       bool shift) {
  if (static_cast<int64_t>(ids.size()) != logits.size(0))
    fail(ErrorCode::BadInput, "{}: {} labels for {} rows", record.where(), ids.size(),
         logits.size(0));
  for (const int64_t id : ids)
    if (id != kUnlabelled && (id < 0 || id >= logits.size(1)))
      fail(ErrorCode::BadInput, "{}: label {} is outside the {} classes of the head",
           record.where(), id, logits.size(1));
  if (shift) {  // a row predicts the label of the next one
    ids.erase(ids.begin());
    ids.push_back(kUnlabelled);
  }
  const CrossEntropy loss = cross_entropy(logits, int64_tensor(ids), Tensor(), 0);
  return loss.sum / std::max(loss.count, 1.0);
}

enum class Problem { Regression, OneLabel, SeveralLabels };

/// What a sequence head learns: as the run's task says, else config.json's problem_type, else by
/// the number of outputs and the kind of labels.
Problem problem_of(const Target& target, const Tensor& logits, const Json& labels) {
  if (!target.card.task.empty() && target.task != nullptr)
    return target.task->regression()                            ? Problem::Regression
           : target.task->objective() == "binary_cross_entropy" ? Problem::SeveralLabels
                                                                : Problem::OneLabel;
  const Json problem = target.loaded.model->config().value("problem_type", Json());
  if (problem == "regression") return Problem::Regression;
  if (problem == "single_label_classification") return Problem::OneLabel;
  if (problem == "multi_label_classification") return Problem::SeveralLabels;
  if (logits.size(1) == 1) return Problem::Regression;
  return labels.is_array() ? Problem::SeveralLabels : Problem::OneLabel;
}

/// Where a span begins and ends: the mean of two cross-entropies over the rows.
Tensor loss_of_span(const Tensor& logits, const Record& record) {
  Tensor sum;
  int64_t side = 0;
  for (const char* name : {"start_positions", "end_positions"}) {
    const int64_t place = static_cast<int64_t>(number_of(record, name));
    const Tensor loss =
        loss_of_classes(logits.select(1, side++).unsqueeze(0).contiguous(), record, {place}, false);
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum / 2;
}

}  // namespace

Batch input_of(const Target& target, const Record& record) {
  const ModelSpec& spec = spec_of(target);
  Batch batch;
  const StackSpec& first = spec.first();
  batch.streams[first.name] =
      first.front == FrontEnd::Patches ? patches_stream(target, record) : tokens_of(target, record);
  if (spec.stacks.size() > 1)
    if (const Stream decoder = decoder_tokens(target, record); decoder.ids.defined())
      batch.streams[spec.last().name] = decoder;
  return batch;
}

Tensor loss_of(const Target& target, const Record& record, const Tensor& logits) {
  const ModelSpec& spec = spec_of(target);
  if (spec.head.kind == HeadKind::Span)
    return has_column(record, "start_positions") ? loss_of_span(logits, record) : Tensor();
  if (!has_column(record, "labels")) return Tensor();
  const Json& labels = column(record, "labels");
  if (spec.head.kind == HeadKind::Sequence) {
    const Problem problem = problem_of(target, logits, labels);
    if (problem != Problem::OneLabel)
      return loss_of_numbers(logits, record, problem == Problem::Regression);
    if (!labels.is_number_integer()) wrong_label(record, "a class, a whole number", labels);
    return loss_of_classes(logits, record, {labels.get<int64_t>()}, false);
  }
  const bool shift = spec.head.kind == HeadKind::Lm && spec.stacks.size() == 1;
  return loss_of_classes(logits, record, integers_of(record, "labels"), shift);
}

}  // namespace attune
