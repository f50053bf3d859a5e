#include "text/special_tokens.h"

#include <algorithm>
#include <set>

namespace attune {
namespace {

constexpr const char* kRoles[] = {"bos", "eos", "unk", "sep", "pad", "cls", "mask"};

/// added_tokens.json, which listed tokens before tokenizer_config.json did: content -> id. Special
/// are those that the other files name so.
/// Differs: transformers 5 misses those that special_tokens_map.json has as
/// additional_special_tokens, which older releases wrote there.
std::vector<AddedToken> read_old_list(TokenizerFolder& folder, const std::set<std::string>& named) {
  const nlohmann::json values = folder.read_object("added_tokens.json");
  const JsonView list(values, folder.path("added_tokens.json"), "");
  std::vector<AddedToken> out;
  for (const auto& [content, id] : list.entries()) {
    const nlohmann::json token = {{"content", content}, {"special", named.contains(content)}};
    out.push_back(read_added_token({token, list.file(), content}, id.as_int()));
  }
  std::sort(out.begin(), out.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return out;
}

}  // namespace

SpecialTokens::SpecialTokens(TokenizerFolder& folder,
                             const std::map<std::string, std::string>& usual)
    : decoder_(read_added_tokens_decoder(folder.config())) {
  std::set<std::string> named;  // by the files
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
      named.insert(roles_[role].content);
    } else if (folder.config().value().contains(key)) {
      continue;
    } else if (folder.map().has(key)) {
      roles_[role] = known(read_special_token(folder.map().at(key)));
      named.insert(roles_[role].content);
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
      named.insert(extra_.back().content);
    }
  }
  if (!folder.config().has("added_tokens_decoder")) decoder_ = read_old_list(folder, named);
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

bool SpecialTokens::lists(const std::string& content) const {
  return std::any_of(decoder_.begin(), decoder_.end(),
                     [&](const AddedToken& token) { return token.content == content; });
}

std::string SpecialTokens::content(const std::string& role) const {
  return roles_.contains(role) ? roles_.at(role).content : "";
}

}  // namespace attune
