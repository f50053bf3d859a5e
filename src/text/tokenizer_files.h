#pragma once
#include "text/tokenizer_folder.h"
#include "text/tokenizer_parts.h"

namespace attune {

// Tokenizers of folders without tokenizer.json. Stages and special tokens are those of the
// transformers class (version 5) that tokenizer_config.json names, or else that belongs to the
// model_type of config.json, or else to the file's name. All throw Unsupported for another class
// and Corrupt for a damaged file.

/// vocab.txt by the rules of BERT and of the classes that share them.
void load_vocab_txt(TokenizerFolder& folder, Tokenizer::Parts& parts);
/// vocab.json and merges.txt by the rules of GPT-2, RoBERTa or Qwen2.
void load_bpe_files(TokenizerFolder& folder, Tokenizer::Parts& parts);
/// The SentencePiece model `file` by the rules of LLaMA, T5, XLM-RoBERTa or ALBERT.
void load_sentencepiece(TokenizerFolder& folder, const std::string& file, Tokenizer::Parts& parts);

}  // namespace attune
