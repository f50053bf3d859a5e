#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/text.h"
#include "text/load_json.h"
#include "text/tokenizer_parts.h"

namespace attune {
namespace {

using nlohmann::json;

/// Reads the files of one folder and hashes them on the way.
class Folder {
 public:
  explicit Folder(std::string dir) : dir_(std::move(dir)) {}
  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  bool has(const std::string& name) const { return file_exists(path(name)); }
  std::string read(const std::string& name) {
    std::string content = read_file(path(name));
    hash_.add(format("{}\n{}\n", name, content.size()));
    hash_.add(content);
    return content;
  }
  /// An empty object when the file does not exist.
  json read_object(const std::string& name) {
    if (!has(name)) return json::object();
    json value = parse_tokenizer_json(read(name), path(name)).root;
    if (!value.is_object()) fail(ErrorCode::Corrupt, "{}: expected an object", path(name));
    return value;
  }
  std::string fingerprint() { return hash_.hex(); }

 private:
  std::string dir_;
  Sha256 hash_;
};

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

void load_tokenizer_json(Folder& folder, Tokenizer::Parts& parts) {
  const std::string file = folder.path("tokenizer.json");
  TokenizerJson parsed = parse_tokenizer_json(folder.read("tokenizer.json"), file);
  const JsonView root(parsed.root, file, "");
  const json kNull;
  const auto part = [&](const char* key) {
    return root.has(key) ? root.at(key) : JsonView(kNull, file, key);
  };
  parts.model = make_model(root.at("model"), std::move(parsed.vocabulary));
  parts.normalizer = make_normalizer(part("normalizer"));
  parts.pre_tokenizer = make_pre_tokenizer(part("pre_tokenizer"));
  parts.post_processor = make_post_processor(part("post_processor"));
  parts.decoder = make_decoder(part("decoder"));
  std::vector<AddedToken> added;
  if (root.has("added_tokens")) {
    for (const JsonView& item : root.at("added_tokens").items()) {
      added.push_back(read_added_token(item, item.at("id").as_int()));
    }
  }
  parts.finish(std::move(added), file + ": added_tokens");
}

/// Lines of vocab.txt; a piece that comes twice keeps its last number, as in the reference.
Vocabulary read_vocabulary(const std::string& text) {
  std::unordered_map<std::string, int32_t> ids;
  int32_t line = 0;
  for (size_t at = 0; at < text.size(); ++line) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    size_t last = end;
    while (last > at && (text[last - 1] == '\r' || text[last - 1] == ' ')) --last;
    ids[text.substr(at, last - at)] = line;
    at = end + 1;
  }
  return {ids.begin(), ids.end()};
}

/// The value of a special token: a string, or an object with "content"; empty when absent.
std::string token_text(const JsonView& config, const std::string& key) {
  if (!config.has(key)) return "";
  const JsonView value = config.at(key);
  return value.value().is_object() ? value.at("content").as_string() : value.as_string();
}

std::vector<AddedToken> special_tokens(const Tokenizer::Parts& parts, const JsonView& config) {
  std::vector<AddedToken> out;
  if (config.has("added_tokens_decoder")) {
    for (const auto& [key, item] : config.at("added_tokens_decoder").entries()) {
      int64_t id = -1;
      if (!key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos) {
        id = std::stoll(key);
      }
      out.push_back(read_added_token(item, id));
    }
    return out;
  }
  for (const std::string name : {"unk", "sep", "pad", "cls", "mask"}) {
    AddedToken token;
    token.content = token_text(config, name + "_token");
    if (token.content.empty()) {
      for (const char c : name) token.content += char(c - 32);
      token.content = "[" + token.content + "]";
    }
    const std::optional<int32_t> id = parts.model->id(token.content);
    if (!id) continue;
    token.id = *id;
    token.special = true;
    out.push_back(std::move(token));
  }
  return out;
}

void load_vocab_txt(Folder& folder, const JsonView& config, Tokenizer::Parts& parts) {
  const std::string file = folder.path("vocab.txt");
  WordPieceOptions options;
  if (const std::string unk = token_text(config, "unk_token"); !unk.empty()) {
    options.unknown_token = unk;
  }
  const std::string text = folder.read("vocab.txt");
  if (const std::optional<size_t> bad = invalid_utf8(text)) {
    fail(ErrorCode::Corrupt, "{}: byte {} is not valid UTF-8", file, *bad);
  }
  parts.model = make_word_piece(options, read_vocabulary(text), file);
  BertOptions bert;
  bert.lowercase = config.flag("do_lower_case", true);
  bert.handle_chinese_chars = config.flag("tokenize_chinese_chars", true);
  bert.strip_accents = config.flag("strip_accents", bert.lowercase);
  parts.normalizer = std::make_unique<BertNormalizer>(bert);
  parts.pre_tokenizer =
      make_pre_tokenizer(JsonView(json{{"type", "BertPreTokenizer"}}, file, "pre_tokenizer"));
  parts.decoder = make_word_piece_decoder(options.prefix, true);
  std::vector<AddedToken> added = special_tokens(parts, config);
  parts.finish(std::move(added), folder.path("tokenizer_config.json") + ": added_tokens_decoder");
  const auto need = [&](const char* key, const char* usual) {
    const std::string text_of = token_text(config, key);
    const std::string name = text_of.empty() ? usual : text_of;
    const std::optional<int32_t> id = parts.id(name);
    if (!id) {
      fail(ErrorCode::Corrupt, "{}: the {} \"{}\" is not in the vocabulary", file, key, name);
    }
    return *id;
  };
  const int32_t cls = need("cls_token", "[CLS]");
  parts.post_processor = make_bert_post_processor(cls, need("sep_token", "[SEP]"));
}

/// tokenizer_config.json, then special_tokens_map.json, then the usual name.
void find_specials(const JsonView& config, const JsonView& map, Tokenizer::Parts& parts) {
  const auto find = [&](const std::string& key, const char* usual) -> std::optional<int32_t> {
    std::string text = token_text(config, key);
    if (text.empty()) text = token_text(map, key);
    if (text.empty()) text = usual;
    return text.empty() ? std::nullopt : parts.id(text);
  };
  parts.pad = find("pad_token", "[PAD]");
  parts.cls = find("cls_token", "[CLS]");
  parts.sep = find("sep_token", "[SEP]");
  parts.mask = find("mask_token", "[MASK]");
  parts.unk = find("unk_token", parts.model->unknown_token().c_str());
  parts.bos = find("bos_token", "");
  parts.eos = find("eos_token", "");
}

void read_limits(const JsonView& config, Tokenizer::Parts& parts) {
  if (config.has("model_max_length") && config.at("model_max_length").value().is_number()) {
    const double length = config.at("model_max_length").value().get<double>();
    // Files say "no limit" with a number like 1e30.
    if (length >= 1 && length < 1e9) parts.model_max_length = int64_t(length);
  }
  parts.truncate_left = config.text("truncation_side", "right") == "left";
}

}  // namespace

Tokenizer Tokenizer::load(const std::string& dir) {
  Folder folder(dir);
  const json config_json = folder.read_object("tokenizer_config.json");
  const json map_json = folder.read_object("special_tokens_map.json");
  const JsonView config(config_json, folder.path("tokenizer_config.json"), "");
  const JsonView map(map_json, folder.path("special_tokens_map.json"), "");
  std::unique_ptr<Parts> parts = std::make_unique<Parts>();
  if (folder.has("tokenizer.json")) {
    load_tokenizer_json(folder, *parts);
  } else if (folder.has("vocab.txt")) {
    load_vocab_txt(folder, config, *parts);
  } else {
    fail(
        ErrorCode::NotFound,
        "{}: found neither tokenizer.json nor vocab.txt; expected the folder of a pretrained model",
        dir);
  }
  find_specials(config, map, *parts);
  read_limits(config, *parts);
  parts->fingerprint = folder.fingerprint();
  return Tokenizer(std::move(parts));
}

}  // namespace attune
