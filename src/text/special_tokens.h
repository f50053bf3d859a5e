#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/model.h"
#include "text/tokenizer_folder.h"

namespace attune {

/// The special tokens of a folder without tokenizer.json, numbered as transformers numbers them.
class SpecialTokens {
 public:
  /// `usual`: role ("bos", "eos", "unk", "sep", "pad", "cls", "mask") -> content, for roles that
  /// the files say nothing about; a null in tokenizer_config.json takes the role away.
  SpecialTokens(TokenizerFolder& folder, const std::map<std::string, std::string>& usual);

  /// Further tokens, unless the files list some of their own.
  void add_extra(std::vector<AddedToken> tokens);
  /// Gives ids: those that added_tokens_decoder states, the vocabulary's, and the next free ones,
  /// in that order for tokens of added_tokens_decoder, roles and further tokens.
  std::vector<AddedToken> numbered(const Model& model) const;
  /// Content of a role; empty when it has none.
  std::string content(const std::string& role) const;
  /// Does added_tokens_decoder, or the old added_tokens.json, list this token?
  bool lists(const std::string& content) const;

 private:
  std::vector<AddedToken> decoder_;  // with ids
  std::map<std::string, AddedToken> roles_;
  std::vector<AddedToken> extra_;
  bool own_extra_ = false;
};

}  // namespace attune
