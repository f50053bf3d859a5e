#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "core/adaptation.h"
#include "core/head_request.h"

namespace attune {

/// A directory in the format of Hugging Face PEFT: adapter_config.json with a "peft_type".
bool is_peft(const std::string& directory);

/// What adapter_config.json says.
struct PeftCard {
  std::string base_model;  // "" when it names none
  std::string task_type;   // SEQ_CLS, TOKEN_CLS, ...; "" for null
  HeadRequest head;        // of the class that the adapter was trained on; labels from the saved
                           // classifier, 0: unknown
  Json config;
};
/// Errors: NotFound, Corrupt.
PeftCard read_peft_card(const std::string& directory);

/// Attaches an adapter of PEFT to `set`: what its type changes as the method of ours that computes
/// it (exchange/peft_types.def), modules_to_save as `full`, biases as `bias`. Module names are
/// matched in the spelling of old and new releases of transformers, with and without the base
/// model's prefix ("bert."). Errors: Unsupported, naming the peft_type, the field or the tensor
/// that is not understood; Corrupt when config and tensors disagree; BadInput when this model lacks
/// a module that the adapter changes. On an error nothing is attached.
void load_peft(Adaptation& adaptation, Model& model, const std::string& set,
               const std::string& directory);

struct PeftExport {
  std::vector<std::string> directories;  // what was written, in the order in which they apply
  std::vector<std::string> notes;        // what PEFT will and will not understand, a line each
};
/// Writes adapter_config.json, adapter_model.safetensors and README.md for PEFT (checked with
/// 0.21): into `directory`, or, where the set holds methods of several types, into one directory a
/// type inside ("1-lora", "2-ia3"), which apply one after another. Two low-rank updates of one
/// projection become one of the summed rank; what changes a module that is saved whole is added
/// into it. task: "classify", "pair", "regress" ..., "tag", "qa", "lm"; "": the head that the
/// base's config.json names, else none. With `head_is_transformers_like` false (mean pooling), the
/// head is left out and the adapter is one of the bare model. `newer_names`: module names as
/// transformers has them from 2026 on, where the two spellings differ (ViT). Errors: Unsupported,
/// naming method and reason, for what PEFT cannot express; Io.
PeftExport export_peft(const Adaptation& adaptation, const Model& model, const std::string& set,
                       const std::string& base_model, const std::string& task,
                       bool head_is_transformers_like, const std::string& directory,
                       bool newer_names = false);

}  // namespace attune
