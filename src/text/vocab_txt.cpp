#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "text/tokenizer_files.h"

namespace attune {
namespace {

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

std::string role_content(const JsonView& config, const std::string& key) {
  return config.has(key) ? read_special_token(config.at(key)).content : "";
}

std::vector<AddedToken> bert_specials(const Tokenizer::Parts& parts, const JsonView& config) {
  if (config.has("added_tokens_decoder")) return read_added_tokens_decoder(config);
  std::vector<AddedToken> out;
  for (const std::string name : {"unk", "sep", "pad", "cls", "mask"}) {
    AddedToken token;
    token.content = role_content(config, name + "_token");
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

}  // namespace

void load_vocab_txt(TokenizerFolder& folder, Tokenizer::Parts& parts) {
  const JsonView& config = folder.config();
  const std::string file = folder.path("vocab.txt");
  WordPieceOptions options;
  if (const std::string unk = role_content(config, "unk_token"); !unk.empty()) {
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
  const nlohmann::json stage = {{"type", "BertPreTokenizer"}};
  parts.pre_tokenizer = make_pre_tokenizer(JsonView(stage, file, "pre_tokenizer"));
  parts.decoder = make_word_piece_decoder(options.prefix, true);
  std::vector<AddedToken> added = bert_specials(parts, config);
  parts.finish(std::move(added), folder.path("tokenizer_config.json") + ": added_tokens_decoder");
  const auto need = [&](const char* key, const char* usual) {
    const std::string text_of = role_content(config, key);
    const std::string name = text_of.empty() ? usual : text_of;
    const std::optional<int32_t> id = parts.id(name);
    if (!id) {
      fail(ErrorCode::Corrupt, "{}: the {} \"{}\" is not in the vocabulary", file, key, name);
    }
    return *id;
  };
  const int32_t cls = need("cls_token", "[CLS]");
  parts.set_post_processor(make_bert_post_processor(cls, need("sep_token", "[SEP]")));
}

}  // namespace attune
