#include "text/file_recipe.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace attune {
namespace {

constexpr std::pair<const char*, FileRecipe> kClasses[] = {
    {"BertTokenizer", FileRecipe::Bert},
    {"ConvBertTokenizer", FileRecipe::Bert},
    {"DistilBertTokenizer", FileRecipe::Bert},
    {"DPRContextEncoderTokenizer", FileRecipe::Bert},
    {"DPRQuestionEncoderTokenizer", FileRecipe::Bert},
    {"DPRReaderTokenizer", FileRecipe::Bert},
    {"ElectraTokenizer", FileRecipe::Bert},
    {"LayoutLMTokenizer", FileRecipe::Bert},
    {"LxmertTokenizer", FileRecipe::Bert},
    {"MobileBertTokenizer", FileRecipe::Bert},
    {"SqueezeBertTokenizer", FileRecipe::Bert},
    {"GPT2Tokenizer", FileRecipe::Gpt2},
    {"RobertaTokenizer", FileRecipe::Roberta},
    {"BartTokenizer", FileRecipe::Roberta},
    {"LongformerTokenizer", FileRecipe::Roberta},
    {"Qwen2Tokenizer", FileRecipe::Qwen2},
    {"LlamaTokenizer", FileRecipe::Llama},
    {"T5Tokenizer", FileRecipe::T5},
    {"MT5Tokenizer", FileRecipe::T5},
    {"XLMRobertaTokenizer", FileRecipe::XlmRoberta},
    {"AlbertTokenizer", FileRecipe::Albert}};
constexpr std::pair<const char*, FileRecipe> kModelTypes[] = {
    {"bert", FileRecipe::Bert},
    {"convbert", FileRecipe::Bert},
    {"distilbert", FileRecipe::Bert},
    {"dpr", FileRecipe::Bert},
    {"electra", FileRecipe::Bert},
    {"layoutlm", FileRecipe::Bert},
    {"lxmert", FileRecipe::Bert},
    {"megatron-bert", FileRecipe::Bert},
    {"mobilebert", FileRecipe::Bert},
    {"squeezebert", FileRecipe::Bert},
    {"gpt2", FileRecipe::Gpt2},
    {"gpt_neo", FileRecipe::Gpt2},
    {"roberta", FileRecipe::Roberta},
    {"bart", FileRecipe::Roberta},
    {"longformer", FileRecipe::Roberta},
    {"qwen2", FileRecipe::Qwen2},
    {"qwen3", FileRecipe::Qwen2},
    {"llama", FileRecipe::Llama},
    {"mistral", FileRecipe::Llama},
    {"t5", FileRecipe::T5},
    {"mt5", FileRecipe::T5},
    {"umt5", FileRecipe::T5},
    {"xlm-roberta", FileRecipe::XlmRoberta},
    {"albert", FileRecipe::Albert}};

/// "[CLS] A [SEP] B:1 [SEP]:1" as items of a post-processor.
std::vector<PostProcessor::Item> template_items(const std::string& text,
                                                const Tokenizer::Parts& parts,
                                                const std::string& where) {
  std::vector<PostProcessor::Item> out;
  for (std::string word : attune::split(text, ' ')) {
    if (word.empty()) continue;
    const bool second = word.ends_with(":1");
    if (second) word.resize(word.size() - 2);
    const int32_t type = second ? 1 : 0;
    if (word == "$A" || word == "$B") {
      out.push_back({word == "$A" ? 0 : 1, type, {}});
      continue;
    }
    const std::optional<int32_t> id = parts.id(word);
    if (!id)
      fail(ErrorCode::Corrupt, "{}: the special token \"{}\" is not in the vocabulary", where,
           word);
    out.push_back({-1, type, {*id}});
  }
  return out;
}

/// tokenizer_config.json's, else config.json's, as transformers looks for it.
std::string class_of(const TokenizerFolder& folder, const JsonView& model) {
  std::string name = folder.config().text("tokenizer_class", "");
  if (name.empty()) name = model.text("tokenizer_class", "");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name == "PreTrainedTokenizer" || name == "TokenizersBackend" ? "" : name;
}

}  // namespace

FileRecipe file_recipe(TokenizerFolder& folder, const std::string& file,
                       std::vector<FileRecipe> possible, FileRecipe usual) {
  const nlohmann::json config = folder.read_object("config.json");
  const JsonView view(config, folder.path("config.json"), "");
  const std::string name = class_of(folder, view), type = view.text("model_type", "");
  std::optional<FileRecipe> found;
  for (const auto& [known, recipe] : kModelTypes) {
    if (type == known) found = recipe;
  }
  if (!name.empty()) found.reset();
  for (const auto& [known, recipe] : kClasses) {
    if (name == known) found = recipe;
  }
  if (!found && name.empty() && type.empty()) found = usual;
  if (found && std::count(possible.begin(), possible.end(), *found) > 0) return *found;
  fail(ErrorCode::Unsupported,
       "{}: making the tokenizer of {} from this file is not supported; save its tokenizer.json "
       "with transformers and put it beside",
       folder.path(file), !name.empty() ? "class " + name : "model type " + type);
}

std::map<std::string, std::string> usual_specials(FileRecipe recipe) {
  switch (recipe) {
    case FileRecipe::Bert:
      return {{"unk", "[UNK]"},
              {"sep", "[SEP]"},
              {"pad", "[PAD]"},
              {"cls", "[CLS]"},
              {"mask", "[MASK]"}};
    case FileRecipe::Gpt2:
      return {{"bos", "<|endoftext|>"}, {"eos", "<|endoftext|>"}, {"unk", "<|endoftext|>"}};
    case FileRecipe::Qwen2:
      return {{"pad", "<|endoftext|>"}, {"eos", "<|endoftext|>"}, {"unk", "<|endoftext|>"}};
    case FileRecipe::Llama:
      return {{"bos", "<s>"}, {"eos", "</s>"}, {"unk", "<unk>"}};
    case FileRecipe::T5:
      return {{"pad", "<pad>"}, {"eos", "</s>"}, {"unk", "<unk>"}};
    case FileRecipe::Albert:
      return {{"bos", "[CLS]"}, {"eos", "[SEP]"}, {"cls", "[CLS]"},  {"sep", "[SEP]"},
              {"pad", "<pad>"}, {"unk", "<unk>"}, {"mask", "[MASK]"}};
    case FileRecipe::Roberta:
    case FileRecipe::XlmRoberta:
      break;
  }
  return {{"bos", "<s>"},   {"eos", "</s>"},  {"cls", "<s>"},    {"sep", "</s>"},
          {"pad", "<pad>"}, {"unk", "<unk>"}, {"mask", "<mask>"}};
}

void keep_roles(const SpecialTokens& specials, Tokenizer::Parts& parts) {
  const std::pair<const char*, std::optional<int32_t>*> roles[] = {
      {"bos", &parts.bos}, {"eos", &parts.eos}, {"unk", &parts.unk},  {"sep", &parts.sep},
      {"pad", &parts.pad}, {"cls", &parts.cls}, {"mask", &parts.mask}};
  for (const auto& [role, place] : roles) {
    const std::string content = specials.content(role);
    *place = content.empty() ? std::nullopt : parts.id(content);
  }
}

PostProcessor template_of(const std::string& single, const std::string& pair,
                          const Tokenizer::Parts& parts, const std::string& where) {
  return {template_items(single, parts, where), template_items(pair, parts, where)};
}

PostProcessor bos_eos_template(const TokenizerFolder& folder, const SpecialTokens& specials,
                               const Tokenizer::Parts& parts) {
  std::string bos, eos;
  if (folder.config().flag("add_bos_token", false)) bos = specials.content("bos");
  if (folder.config().flag("add_eos_token", false)) eos = specials.content("eos");
  const auto with = [](const std::string& token, const char* end) {
    return token.empty() ? std::string() : token + end;
  };
  const std::string single = with(bos, " ") + "$A " + with(eos, " ");
  return template_of(single, single + with(bos, ":1 ") + "$B:1 " + with(eos, ":1"), parts,
                     folder.dir());
}

nlohmann::json byte_level_stage(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"use_regex", use_regex}};
}

nlohmann::json metaspace_stage(const std::string& scheme, bool split) {
  return {{"type", "Metaspace"},
          {"replacement", "\u2581"},
          {"prepend_scheme", scheme},
          {"split", split}};
}

}  // namespace attune
