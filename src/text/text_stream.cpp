#include "text/tokenizer.h"
#include "text/tokenizer_parts.h"

namespace attune {

std::string TextStream::add(int32_t id) {
  const Tokenizer::Parts& parts = *tokenizer_.parts_;
  const std::string* const token = parts.shown(id, skip_special_tokens_);
  if (token == nullptr) return "";
  ids_.push_back(id);
  // A run of byte tokens is text only when all of it is UTF-8.
  if (parts.decoder->joins_bytes() && byte_of_token(*token) >= 0) return "";
  std::string text = tokenizer_.decode(ids_, skip_special_tokens_);
  if (text.size() <= last_.size() || text.ends_with("\uFFFD")) return "";
  std::string out = text.substr(last_.size());
  // The tokens of the last text stay in front of the next ones, since a decoder treats the first
  // token of a text in its own way.
  ids_.erase(ids_.begin(), ids_.begin() + std::ptrdiff_t(shown_));
  shown_ = ids_.size();
  last_ = tokenizer_.decode(ids_, skip_special_tokens_);
  return out;
}

std::string TextStream::finish() {
  const std::string text = tokenizer_.decode(ids_, skip_special_tokens_);
  std::string out = text.size() > last_.size() ? text.substr(last_.size()) : "";
  ids_.clear();
  shown_ = 0;
  last_.clear();
  return out;
}

}  // namespace attune
