#include "text/special_tokens.h"

#include <algorithm>

namespace attune {
namespace {

constexpr const char* kRoles[] = {"bos", "eos", "unk", "sep", "pad", "cls", "mask"};

}  // namespace

SpecialTokens::SpecialTokens(const TokenizerFolder& folder,
                             const std::map<std::string, std::string>& usual)
    : decoder_(read_added_tokens_decoder(folder.config())) {
  const auto known = [&](AddedToken token) {
    for (const AddedToken& other : decoder_) {
      if (other.content == token.content) token = other;
    }
    token.special = true;
    return token;
  };
  for (const std::string role : kRoles) {
    const std::string key = role + "_token";
    if (folder.config().has(key)) {
      roles_[role] = known(read_special_token(folder.config().at(key)));
    } else if (folder.config().value().contains(key)) {
      continue;
    } else if (folder.map().has(key)) {
      roles_[role] = known(read_special_token(folder.map().at(key)));
    } else if (usual.contains(role)) {
      AddedToken token;
      token.content = usual.at(role);
      roles_[role] = known(token);
    }
  }
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    const JsonView& place = folder.config().has(key) ? folder.config() : folder.map();
    if (own_extra_ || !place.has(key) || !place.at(key).value().is_array()) continue;
    own_extra_ = true;
    for (const JsonView& item : place.at(key).items()) {
      extra_.push_back(known(read_special_token(item)));
    }
  }
}

void SpecialTokens::add_extra(std::vector<AddedToken> tokens) {
  if (own_extra_) return;
  for (AddedToken& token : tokens) extra_.push_back(std::move(token));
}

std::vector<AddedToken> SpecialTokens::numbered(const Model& model) const {
  std::vector<AddedToken> out = decoder_;
  int64_t next = model.id_bound();
  for (const AddedToken& token : decoder_) next = std::max(next, int64_t(token.id) + 1);
  const auto add = [&](AddedToken token) {
    for (AddedToken& other : out) {
      if (other.content != token.content) continue;
      other.special = other.special || token.special;
      return;
    }
    const std::optional<int32_t> id = model.id(token.content);
    token.id = id ? *id : int32_t(next++);
    out.push_back(std::move(token));
  };
  for (const char* role : kRoles) {
    if (roles_.contains(role)) add(roles_.at(role));
  }
  for (const AddedToken& token : extra_) add(token);
  return out;
}

std::string SpecialTokens::content(const std::string& role) const {
  return roles_.contains(role) ? roles_.at(role).content : "";
}

}  // namespace attune
