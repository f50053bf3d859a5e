#include "base/error.h"
#include "base/text.h"
#include "text/bpe.h"
#include "text/file_recipe.h"
#include "text/load_json.h"
#include "text/tokenizer_files.h"

namespace attune {
namespace {

using nlohmann::json;

constexpr const char* kQwenWords =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

Merges read_merges_txt(TokenizerFolder& folder) {
  Merges out;
  size_t number = 0;
  for (std::string line : attune::split(folder.read("merges.txt"), '\n')) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    std::vector<std::string> pair = attune::split(line, ' ');
    if (pair.size() != 2 || pair[0].empty() || pair[1].empty()) {
      fail(ErrorCode::Corrupt, "{}:{}: found \"{}\"; expected two pieces with a blank between them",
           folder.path("merges.txt"), number, line);
    }
    out.emplace_back(std::move(pair[0]), std::move(pair[1]));
  }
  return out;
}

json words_stage(FileRecipe recipe, bool prefix_space) {
  if (recipe != FileRecipe::Qwen2) return byte_level_stage(prefix_space, true);
  const json cut = {
      {"type", "Split"}, {"pattern", {{"Regex", kQwenWords}}}, {"behavior", "Isolated"}};
  return {{"type", "Sequence"},
          {"pretokenizers", json::array({cut, byte_level_stage(prefix_space, false)})}};
}

}  // namespace

void load_bpe_files(TokenizerFolder& folder, Tokenizer::Parts& parts) {
  const FileRecipe recipe =
      file_recipe(folder, "vocab.json", {FileRecipe::Gpt2, FileRecipe::Roberta, FileRecipe::Qwen2},
                  FileRecipe::Gpt2);
  const std::string file = folder.path("vocab.json");
  Vocabulary vocabulary = parse_vocabulary_json(folder.read("vocab.json"), file);
  parts.model =
      std::make_unique<Bpe>(BpeOptions(), std::move(vocabulary), read_merges_txt(folder), file);
  const bool prefix_space = folder.config().flag("add_prefix_space", false);
  const json normalizer = recipe == FileRecipe::Qwen2 ? json{{"type", "NFC"}} : json();
  const json words = words_stage(recipe, prefix_space), decoder = {{"type", "ByteLevel"}};
  parts.normalizer = make_normalizer({normalizer, file, "normalizer"});
  parts.pre_tokenizer = make_pre_tokenizer({words, file, "pre_tokenizer"});
  parts.decoder = make_decoder({decoder, file, "decoder"});
  const SpecialTokens specials(folder, usual_specials(recipe));
  parts.finish(specials.numbered(*parts.model), folder.dir());
  keep_roles(specials, parts);
  if (recipe != FileRecipe::Roberta) {
    return parts.set_post_processor(bos_eos_template(folder, specials, parts));
  }
  const std::string single = specials.content("cls") + " $A " + specials.content("sep");
  const std::string pair =
      single + " " + specials.content("sep") + " $B " + specials.content("sep");
  PostProcessor post = template_of(single, pair, parts, folder.dir());
  if (folder.config().flag("trim_offsets", true)) post.add_trim(prefix_space);
  parts.set_post_processor(std::move(post));
}

}  // namespace attune
