#include "text/tokenizer_folder.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "text/load_json.h"

namespace attune {

TokenizerFolder::TokenizerFolder(std::string dir)
    : dir_(std::move(dir)),
      config_json_(read_object("tokenizer_config.json")),
      map_json_(read_object("special_tokens_map.json")),
      config_(config_json_, path("tokenizer_config.json"), ""),
      map_(map_json_, path("special_tokens_map.json"), "") {}

bool TokenizerFolder::has(const std::string& name) const {
  return file_exists(path(name));
}

std::string TokenizerFolder::read(const std::string& name) {
  std::string content = read_file(path(name));
  hash_.add(format("{}\n{}\n", name, content.size()));
  hash_.add(content);
  return content;
}

nlohmann::json TokenizerFolder::read_object(const std::string& name) {
  if (!has(name)) return nlohmann::json::object();
  nlohmann::json value = parse_tokenizer_json(read(name), path(name)).root;
  if (!value.is_object()) fail(ErrorCode::Corrupt, "{}: expected an object", path(name));
  return value;
}

AddedToken read_added_token(const JsonView& item, int64_t id) {
  if (id < 0 || id > INT32_MAX) {
    fail(ErrorCode::Corrupt, "{}: added token has id {}; expected 0 or more", item.where(), id);
  }
  AddedToken token;
  token.id = int32_t(id);
  token.content = item.at("content").as_string();
  token.single_word = item.flag("single_word", false);
  token.lstrip = item.flag("lstrip", false);
  token.rstrip = item.flag("rstrip", false);
  token.special = item.flag("special", false);
  token.normalized = item.flag("normalized", !token.special);
  return token;
}

AddedToken read_special_token(const JsonView& value) {
  AddedToken token;
  if (value.value().is_object()) {
    token = read_added_token(value, 0);
    token.normalized = value.flag("normalized", false);
  } else {
    token.content = value.as_string();
  }
  token.special = true;
  return token;
}

std::vector<AddedToken> read_added_tokens_decoder(const JsonView& config) {
  std::vector<AddedToken> out;
  if (!config.has("added_tokens_decoder")) return out;
  for (const auto& [key, item] : config.at("added_tokens_decoder").entries()) {
    int64_t id = -1;
    if (!key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos) {
      id = std::stoll(key);
    }
    out.push_back(read_added_token(item, id));
  }
  std::sort(out.begin(), out.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return out;
}

}  // namespace attune
