#pragma once
#include "core/batch.h"
#include "data/records.h"
#include "recipe/target.h"

namespace attune {

/// The batch that one line of data is to this model: `input_ids` or `text` (with `text_pair`,
/// `token_type_ids`), for encoder-decoders `decoder_input_ids` (else made from `labels`, or from
/// the input, as transformers' classes do), for image models `{"image": FILE}`, or `{"tensors":
/// FILE}` with `pixel_values` [channels, height, width]. A relative FILE is looked for beside the
/// data, then here. Errors: BadInput naming the line.
Batch input_of(const Target& target, const Record& record);

/// The loss that transformers' head class defines for a line: `labels` (a class, a number, one
/// label a row with -100 skipped; causal models shift them by one; of sequences the loss of
/// config.json's problem_type, else mean squared error of one output, binary cross-entropy of a
/// list of labels, cross-entropy of a class), or `start_positions` and `end_positions` for spans.
/// Undefined when the line has none. Errors: BadInput naming the line.
Tensor loss_of(const Target& target, const Record& record, const Tensor& logits);

}  // namespace attune
