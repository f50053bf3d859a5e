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

/// The tuner that holds the file's rows as its tensor `part`: those of the first stack. `options`
/// are the method's own beside sites, length and pooled. Errors: Corrupt on other sizes than the
/// config's num_virtual_tokens and the model's width.
std::vector<PeftTuner> prompt_tuners(PeftSource& source, const std::string& method, Json options,
                                     const std::string& part);
/// The piece of a tuner that puts rows in front of the first stack's; `config` are the type's own
/// fields. Errors: Unsupported, saying which of PEFT's rules the tuner does not follow.
PeftPiece prompt_piece(const PeftView& view, const std::string& type, Json config);
/// Fields that all prompt-learning types have.
std::vector<std::string> prompt_fields(const std::vector<std::string>& own);

}  // namespace attune
