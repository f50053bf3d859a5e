#pragma once
#include <string>
#include <vector>

#include "exchange/peft_type.h"

namespace attune {

/// The tensor of every prompt-learning type.
constexpr const char* kPromptTensor = "prompt_embeddings";

/// Where PEFT puts prompt rows: in front of the first stack's token rows, before positions join
/// them. Errors: Unsupported for a model without token rows.
const Site& prompt_site(const Model& model, const std::string& where);
/// True when a model has two stacks of which the second attends to the first.
bool is_encoder_decoder(const Model& model);
/// Blocks of a stack.
int64_t layers_of(const Model& model, const std::string& stack);

/// Rows of a prompt from the file: those of the first stack. Errors: Corrupt on other sizes than
/// the config's num_virtual_tokens and the model's width.
Tensor prompt_rows(PeftSource& source, const Site& site);
/// The piece of a tuner that puts rows in front of the first stack's; `config` are the type's own
/// fields. Errors: Unsupported, saying which of PEFT's rules the tuner does not follow.
PeftPiece prompt_piece(const PeftView& view, const std::string& type, Json config);
/// Fields that all prompt-learning types have.
std::vector<std::string> prompt_fields(const std::vector<std::string>& own);

}  // namespace attune
