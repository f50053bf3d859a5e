#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "text/bpe.h"
#include "text/char_map.h"
#include "text/file_recipe.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace attune {
namespace {

using nlohmann::json;

/// Every way to put a piece together from two others, in the order of the pieces' numbers; ways to
/// make one piece go by the lengths of its halves in characters, then by their numbers.
Merges merges_of(const SentencePieceModel& file) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t i = 0; i < file.pieces.size(); ++i) ids[file.pieces[i].piece] = int32_t(i);
  struct Way {
    int32_t whole, left_size, right_size, left, right;
  };
  std::vector<Way> ways;
  for (const auto& [text, whole] : ids) {
    const int32_t size = int32_t(code_points(text));
    int32_t left_size = 0;
    for (size_t at = 1; at < text.size(); ++at) {
      if ((text[at] & 0xC0) == 0x80) continue;
      ++left_size;
      const std::unordered_map<std::string_view, int32_t>::const_iterator left = ids.find(
                                                                              text.substr(0, at)),
                                                                          right = ids.find(
                                                                              text.substr(at));
      if (left == ids.end() || right == ids.end()) continue;
      ways.push_back({whole, left_size, size - left_size, left->second, right->second});
    }
  }
  std::sort(ways.begin(), ways.end(), [](const Way& a, const Way& b) {
    return std::tie(a.whole, a.left_size, a.right_size, a.left, a.right) <
           std::tie(b.whole, b.left_size, b.right_size, b.left, b.right);
  });
  Merges out;
  for (const Way& way : ways) {
    out.emplace_back(file.pieces[size_t(way.left)].piece, file.pieces[size_t(way.right)].piece);
  }
  return out;
}

std::unique_ptr<Model> bpe_model(const SentencePieceModel& file, const std::string& where) {
  BpeOptions options;
  options.fuse_unknown = true;
  options.byte_fallback = true;
  Vocabulary vocabulary;
  for (const SentencePieceModel::Entry& entry : file.pieces) {
    vocabulary.emplace_back(entry.piece, int32_t(vocabulary.size()));
  }
  return std::make_unique<Bpe>(std::move(options), std::move(vocabulary), merges_of(file), where);
}

/// The file's pieces, with what the model's own library puts before and behind them.
std::unique_ptr<Model> unigram_model(const TokenizerFolder& folder, const SentencePieceModel& file,
                                     FileRecipe recipe, const SpecialTokens& specials,
                                     const std::string& where) {
  ModelTables tables;
  const auto add = [&](const std::string& piece, double score) {
    tables.vocabulary.emplace_back(piece, int32_t(tables.vocabulary.size()));
    tables.scores.push_back(score);
  };
  size_t first = 0;
  int32_t unknown = file.unknown_id;
  if (recipe == FileRecipe::XlmRoberta) {
    for (const char* role : {"bos", "pad", "eos", "unk"}) add(specials.content(role), 0);
    first = 3;
    unknown = 3;
  }
  for (size_t i = first; i < file.pieces.size(); ++i)
    add(file.pieces[i].piece, file.pieces[i].score);
  if (recipe == FileRecipe::XlmRoberta) add(specials.content("mask"), 0);
  if (recipe == FileRecipe::T5) {
    const JsonView& config = folder.config();
    const int64_t extra = config.has("extra_ids") ? config.at("extra_ids").as_int() : 100;
    for (int64_t i = std::min<int64_t>(extra, 10000); i-- > 0;) add(format("<extra_id_{}>", i), 0);
  }
  return make_unigram(std::move(tables), unknown, false, where);
}

/// Control and user-defined pieces are tokens of their own, and so are T5's sentinels.
std::vector<AddedToken> own_tokens(const SentencePieceModel& file, const Model& model) {
  std::vector<AddedToken> out;
  const auto add = [&](const std::string& content, bool special) {
    AddedToken token;
    token.content = content;
    token.special = special;
    out.push_back(std::move(token));
  };
  for (const SentencePieceModel::Entry& entry : file.pieces) {
    const bool control = entry.type == SentencePieceModel::Control;
    if (control || entry.type == SentencePieceModel::UserDefined) add(entry.piece, control);
  }
  for (int i = 0; model.id(format("<extra_id_{}>", i)); ++i) add(format("<extra_id_{}>", i), true);
  return out;
}

void set_llama_stages(const TokenizerFolder& folder, const std::string& where,
                      Tokenizer::Parts& parts) {
  const JsonView& config = folder.config();
  const bool prefix_space = config.flag("add_prefix_space", true);
  const char* const scheme = !prefix_space                  ? "never"
                             : config.flag("legacy", false) ? "always"
                                                            : "first";
  const json words = metaspace_stage(scheme, false);
  json decoders =
      json::array({{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}});
  if (prefix_space) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const json decoder = {{"type", "Sequence"}, {"decoders", decoders}};
  parts.pre_tokenizer = make_pre_tokenizer({words, where, "pre_tokenizer"});
  parts.decoder = make_decoder({decoder, where, "decoder"});
}

/// ALBERT's changes come before the file's character map.
json albert_changes(const JsonView& config) {
  json out = json::array();
  for (const char* quotes : {"``", "''"}) {
    out.push_back({{"type", "Replace"}, {"pattern", {{"String", quotes}}}, {"content", "\""}});
  }
  if (!config.flag("keep_accents", false)) {
    out.push_back({{"type", "NFKD"}});
    out.push_back({{"type", "StripAccents"}});
  }
  if (config.flag("do_lower_case", true)) out.push_back({{"type", "Lowercase"}});
  return out;
}

void set_unigram_stages(const TokenizerFolder& folder, const SentencePieceModel& file,
                        FileRecipe recipe, const std::string& where, Tokenizer::Parts& parts) {
  const JsonView& config = folder.config();
  std::vector<std::unique_ptr<Normalizer>> normalizers;
  if (recipe == FileRecipe::Albert) {
    const json changes = {{"type", "Sequence"}, {"normalizers", albert_changes(config)}};
    normalizers.push_back(make_normalizer({changes, where, "normalizer"}));
  }
  if (!file.char_map.empty()) {
    normalizers.push_back(
        std::make_unique<CharMapNormalizer>(file.char_map, where + ": normalizer_spec"));
  }
  parts.normalizer = make_normalizer_sequence(std::move(normalizers));
  const bool prefix_space = recipe == FileRecipe::T5 || config.flag("add_prefix_space", true);
  const json metaspace = metaspace_stage(prefix_space ? "always" : "never", true);
  const json words = {{"type", "Sequence"},
                      {"pretokenizers", json::array({{{"type", "WhitespaceSplit"}}, metaspace})}};
  parts.pre_tokenizer = make_pre_tokenizer({words, where, "pre_tokenizer"});
  parts.decoder = make_decoder({metaspace, where, "decoder"});
}

PostProcessor unigram_template(const TokenizerFolder& folder, FileRecipe recipe,
                               const SpecialTokens& specials, const Tokenizer::Parts& parts) {
  const std::string eos = specials.content("eos"), bos = specials.content("bos");
  if (recipe == FileRecipe::T5) {
    return template_of("$A " + eos, "$A " + eos + " $B " + eos, parts, folder.dir());
  }
  if (recipe == FileRecipe::Albert) {
    const std::string cls = specials.content("cls"), sep = specials.content("sep");
    const std::string single = cls + " $A " + sep;
    return template_of(single, single + " $B:1 " + sep + ":1", parts, folder.dir());
  }
  const std::string single = bos + " $A " + eos;
  return template_of(single, single + " " + eos + " $B " + eos, parts, folder.dir());
}

}  // namespace

void load_sentencepiece(TokenizerFolder& folder, const std::string& file, Tokenizer::Parts& parts) {
  const FileRecipe usual = file == "spiece.model"      ? FileRecipe::T5
                           : file == "tokenizer.model" ? FileRecipe::Llama
                                                       : FileRecipe::XlmRoberta;
  const FileRecipe recipe = file_recipe(
      folder, file, {FileRecipe::Llama, FileRecipe::T5, FileRecipe::XlmRoberta, FileRecipe::Albert},
      usual);
  const std::string where = folder.path(file);
  const SentencePieceModel model = parse_sentencepiece(folder.read(file), where);
  const bool llama = recipe == FileRecipe::Llama;
  if (model.kind != (llama ? SentencePieceModel::Bpe : SentencePieceModel::Unigram)) {
    fail(
        ErrorCode::Unsupported,
        "{}: the SentencePiece model is of type {}, but this model's tokenizer needs type {} (1 is "
        "unigram, 2 is BPE)",
        where, model.kind, llama ? 2 : 1);
  }
  SpecialTokens specials(folder, usual_specials(recipe));
  parts.model =
      llama ? bpe_model(model, where) : unigram_model(folder, model, recipe, specials, where);
  if (llama) {
    set_llama_stages(folder, where, parts);
  } else {
    set_unigram_stages(folder, model, recipe, where, parts);
  }
  specials.add_extra(own_tokens(model, *parts.model));
  parts.finish(specials.numbered(*parts.model), folder.dir());
  keep_roles(specials, parts);
  parts.set_post_processor(llama ? bos_eos_template(folder, specials, parts)
                                 : unigram_template(folder, recipe, specials, parts));
}

}  // namespace attune
