#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/special_tokens.h"
#include "text/tokenizer_folder.h"
#include "text/tokenizer_parts.h"

namespace attune {

/// Whose stages a folder without tokenizer.json has.
enum class FileRecipe { Bert, Gpt2, Roberta, Qwen2, Llama, T5, XlmRoberta, Albert };

/// By tokenizer_config.json, config.json, or `usual` when neither says. Throws Unsupported for a
/// class that is not known or whose vocabulary is in other files than `file`.
FileRecipe file_recipe(TokenizerFolder& folder, const std::string& file,
                       std::vector<FileRecipe> possible, FileRecipe usual);
/// Role -> content of the special tokens the class has by itself.
std::map<std::string, std::string> usual_specials(FileRecipe recipe);

/// Sets pad, cls, ... by the roles.
void keep_roles(const SpecialTokens& specials, Tokenizer::Parts& parts);
/// A post-processor from templates like "[CLS] $A [SEP] $B:1 [SEP]:1". Throws Corrupt for a token
/// that the vocabulary lacks.
PostProcessor template_of(const std::string& single, const std::string& pair,
                          const Tokenizer::Parts& parts, const std::string& where);
/// bos and eos around each text where add_bos_token and add_eos_token of tokenizer_config.json say
/// so.
PostProcessor bos_eos_template(const TokenizerFolder& folder, const SpecialTokens& specials,
                               const Tokenizer::Parts& parts);

/// Stages as tokenizer.json would have them.
nlohmann::json byte_level_stage(bool add_prefix_space, bool use_regex);
nlohmann::json metaspace_stage(const std::string& scheme, bool split);

}  // namespace attune
