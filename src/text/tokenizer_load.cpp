#include <utility>

#include "base/error.h"
#include "text/load_json.h"
#include "text/tokenizer_files.h"
#include "text/tokenizer_folder.h"
#include "text/tokenizer_parts.h"

namespace attune {
namespace {

using nlohmann::json;

void load_tokenizer_json(TokenizerFolder& folder, Tokenizer::Parts& parts) {
  const std::string file = folder.path("tokenizer.json");
  TokenizerJson parsed = parse_tokenizer_json(folder.read("tokenizer.json"), file);
  const JsonView root(parsed.root, file, "");
  const json kNull;
  const auto part = [&](const char* key) {
    return root.has(key) ? root.at(key) : JsonView(kNull, file, key);
  };
  parts.model = make_model(root.at("model"), std::move(parsed.tables));
  parts.normalizer = make_normalizer(part("normalizer"));
  parts.pre_tokenizer = make_pre_tokenizer(part("pre_tokenizer"));
  parts.set_post_processor(make_post_processor(part("post_processor")));
  parts.decoder = make_decoder(part("decoder"));
  std::vector<AddedToken> added;
  if (root.has("added_tokens")) {
    for (const JsonView& item : root.at("added_tokens").items()) {
      added.push_back(read_added_token(item, item.at("id").as_int()));
    }
  }
  parts.finish(std::move(added), file + ": added_tokens");
}

/// The content of a role's token: tokenizer_config.json, then special_tokens_map.json.
std::string role_of(const TokenizerFolder& folder, const std::string& key) {
  for (const JsonView* file : {&folder.config(), &folder.map()}) {
    if (file->has(key)) return read_special_token(file->at(key)).content;
  }
  return "";
}

/// The role's token, or else the first of the usual names that is a special token of the file.
void find_specials(const TokenizerFolder& folder, Tokenizer::Parts& parts) {
  const auto find = [&](const char* key, std::initializer_list<const char*> usual) {
    const std::string content = role_of(folder, key);
    if (!content.empty()) return parts.id(content);
    for (const char* name : usual) {
      const std::optional<int32_t> id = parts.id(name);
      if (!id) continue;
      const std::unordered_map<int32_t, size_t>::const_iterator added = parts.added_index.find(*id);
      if (added != parts.added_index.end() && parts.added[added->second].special) return id;
    }
    return std::optional<int32_t>();
  };
  parts.pad = find("pad_token", {"[PAD]", "<pad>", "<|pad|>"});
  parts.cls = find("cls_token", {"[CLS]"});
  parts.sep = find("sep_token", {"[SEP]"});
  parts.mask = find("mask_token", {"[MASK]", "<mask>"});
  parts.unk = find("unk_token", {});
  if (!parts.unk && !parts.model->unknown_token().empty()) {
    parts.unk = parts.id(parts.model->unknown_token());
  }
  parts.bos = find("bos_token", {"<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"});
  parts.eos = find("eos_token", {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"});
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
  TokenizerFolder folder(dir);
  std::unique_ptr<Parts> parts = std::make_unique<Parts>();
  std::string sentencepiece;
  for (const char* name : {"spiece.model", "tokenizer.model", "sentencepiece.bpe.model"}) {
    if (sentencepiece.empty() && folder.has(name)) sentencepiece = name;
  }
  if (folder.has("tokenizer.json")) {
    load_tokenizer_json(folder, *parts);
    find_specials(folder, *parts);
  } else if (folder.has("vocab.txt")) {
    load_vocab_txt(folder, *parts);
    find_specials(folder, *parts);
  } else if (folder.has("vocab.json") && folder.has("merges.txt")) {
    load_bpe_files(folder, *parts);
  } else if (!sentencepiece.empty()) {
    load_sentencepiece(folder, sentencepiece, *parts);
  } else {
    fail(
        ErrorCode::NotFound,
        "{}: found neither tokenizer.json nor vocab.txt, vocab.json with merges.txt, spiece.model, "
        "tokenizer.model or sentencepiece.bpe.model; expected the folder of a pretrained model",
        dir);
  }
  read_limits(folder.config(), *parts);
  const char* anyway = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
  parts->cleans_up = folder.config().flag("clean_up_tokenization_spaces", false) &&
                     (!parts->model->is_bpe() || folder.config().flag(anyway, false));
  parts->fingerprint = folder.fingerprint();
  return Tokenizer(std::move(parts));
}

}  // namespace attune
