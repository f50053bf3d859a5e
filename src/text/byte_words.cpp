#include "text/byte_words.h"

namespace attune {

std::unique_ptr<ByteWords> ByteWords::make(const Normalizer* normalizer,
                                           const PreTokenizer* pre_tokenizer, const Model& model) {
  const Bpe* const bpe = dynamic_cast<const Bpe*>(&model);
  if (bpe == nullptr || !bpe->covers_bytes() || pre_tokenizer == nullptr) return nullptr;
  std::unique_ptr<ByteWords> out(new ByteWords(normalizer, *bpe));
  if (pre_tokenizer->byte_step(out->patterns_) != PreTokenizer::ByteStep::Write) return nullptr;
  return out;
}

std::vector<PreTokenizer::Range> ByteWords::words(std::string_view text) const {
  using Range = PreTokenizer::Range;
  std::vector<Range> ranges{{0, int32_t(text.size())}}, out, matches;
  for (const Pattern* const pattern : patterns_) {
    Pattern::Matcher matcher(*pattern);
    out.clear();
    out.reserve(text.size() / 4 + 4);
    for (const auto& [begin, end] : ranges) {
      matches.clear();
      matcher.find_bytes(text.substr(size_t(begin), size_t(end - begin)), matches);
      int32_t at = begin;
      for (const Range& match : matches) {
        if (at < begin + match.first) out.emplace_back(at, begin + match.first);
        at = begin + match.second;
        if (match.first < match.second) out.emplace_back(begin + match.first, at);
      }
      if (at < end) out.emplace_back(at, end);
    }
    ranges.swap(out);
  }
  return ranges;
}

}  // namespace attune
