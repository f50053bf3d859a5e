#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "text/file_recipe.h"
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

/// The class's own tokens; a padding or mask token that the vocabulary lacks is not made up.
std::map<std::string, std::string> usual_roles(FileRecipe recipe, const Vocabulary& vocabulary) {
  std::map<std::string, std::string> roles = usual_specials(recipe);
  for (const char* role : {"pad", "mask"}) {
    const auto is_it = [&](const auto& entry) { return entry.first == roles[role]; };
    if (std::none_of(vocabulary.begin(), vocabulary.end(), is_it)) roles.erase(role);
  }
  return roles;
}

}  // namespace

void load_vocab_txt(TokenizerFolder& folder, Tokenizer::Parts& parts) {
  const FileRecipe recipe = file_recipe(folder, "vocab.txt", {FileRecipe::Bert}, FileRecipe::Bert);
  const JsonView& config = folder.config();
  const std::string file = folder.path("vocab.txt");
  const std::string text = folder.read("vocab.txt");
  if (const std::optional<size_t> bad = invalid_utf8(text)) {
    fail(ErrorCode::Corrupt, "{}: byte {} is not valid UTF-8", file, *bad);
  }
  Vocabulary vocabulary = read_vocabulary(text);
  const SpecialTokens specials(folder, usual_roles(recipe, vocabulary));
  WordPieceOptions options;
  options.unknown_token = specials.content("unk");
  parts.model = make_word_piece(options, std::move(vocabulary), file);
  BertOptions bert;
  bert.lowercase = config.flag("do_lower_case", true);
  bert.handle_chinese_chars = config.flag("tokenize_chinese_chars", true);
  bert.strip_accents = config.flag("strip_accents", bert.lowercase);
  parts.normalizer = std::make_unique<BertNormalizer>(bert);
  const nlohmann::json stage = {{"type", "BertPreTokenizer"}};
  parts.pre_tokenizer = make_pre_tokenizer(JsonView(stage, file, "pre_tokenizer"));
  parts.decoder = make_word_piece_decoder(options.prefix, true);
  const auto need = [&](const std::string& role) {
    const std::string name = specials.content(role);
    if (!parts.model->id(name) && !specials.lists(name)) {
      fail(ErrorCode::Corrupt, "{}: the {}_token \"{}\" is not in the vocabulary", file, role,
           name);
    }
    return name;
  };
  const std::string cls = need("cls"), sep = need("sep");
  parts.finish(specials.numbered(*parts.model), folder.dir());
  parts.set_post_processor(make_bert_post_processor(*parts.id(cls), *parts.id(sep)));
}

}  // namespace attune
