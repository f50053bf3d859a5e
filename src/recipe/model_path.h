#pragma once
#include <string>

namespace attune {

/// The directory of a model: `name` itself when it is a directory (of a run that wrote one, its
/// model/), $ATTUNE_MODELS/name, or its newest snapshot in the Hugging Face cache ($HF_HOME/hub,
/// else ~/.cache/huggingface/hub). Nothing is downloaded. Errors: NotFound, listing where it
/// looked; BadInput for an empty name, and for a run or adapter without a whole checkpoint.
std::string find_model(const std::string& name);

}  // namespace attune
