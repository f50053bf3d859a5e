#include "text/tokenizer_parts.h"

#include "base/error.h"
#include "base/text.h"
#include "text/unicode.h"

namespace attune {

/// Where tokens go, and the scratch space of one call.
struct Tokenizer::Parts::Sink {
  const Model& model;
  TokenRun& out;
  bool offsets;
  int32_t fixed_word;
  int32_t word = 0;
  std::vector<Piece> pieces{};

  int32_t next_word() { return fixed_word >= 0 ? fixed_word : word++; }

  void token(int32_t id, std::pair<int32_t, int32_t> span) {
    out.ids.push_back(id);
    out.words.push_back(next_word());
    if (offsets) out.offsets.push_back(span);
  }

  void bert_word(const BertWord& from) {
    pieces.clear();
    model.tokenize(from.text, pieces);
    const int32_t index = next_word();
    for (const Piece& piece : pieces) {
      out.ids.push_back(piece.id);
      out.words.push_back(index);
      if (!offsets) continue;
      if (from.spans == nullptr) {
        out.offsets.emplace_back(from.first + int32_t(piece.begin),
                                 from.first + int32_t(piece.end));
      } else {
        out.offsets.emplace_back(from.spans[piece.begin].first, from.spans[piece.end - 1].second);
      }
    }
  }
};

std::optional<int32_t> Tokenizer::Parts::id(std::string_view token) const {
  const std::unordered_map<std::string, int32_t>::const_iterator found =
      added_ids.find(std::string(token));
  return found != added_ids.end() ? std::optional<int32_t>(found->second) : model->id(token);
}

void Tokenizer::Parts::finish(std::vector<AddedToken> tokens, const std::string& where) {
  const int64_t limit = model->id_bound() * 10 + 1'000'000;
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const std::optional<int32_t> own = model->id(token.content);
    const std::string* other = model->token(token.id);
    if (token.id < 0 || token.id >= limit || (own && *own != token.id) ||
        (!own && other != nullptr)) {
      fail(ErrorCode::Corrupt, "{}: added token \"{}\" has id {}, but {}", where, token.content,
           token.id,
           own                ? format("the vocabulary gives it id {}", *own)
           : other != nullptr ? format("the vocabulary gives that id to \"{}\"", *other)
                              : std::string("ids are counted from 0 without large gaps"));
    }
    const auto [place, inserted] = added_index.emplace(token.id, added.size());
    if (!inserted && added[place->second].content != token.content) {
      fail(ErrorCode::Corrupt, "{}: added tokens \"{}\" and \"{}\" share id {}; ids must differ",
           where, added[place->second].content, token.content, token.id);
    }
    if (!inserted) continue;
    added_ids[token.content] = token.id;
    std::string text = token.content;
    if (token.normalized && normalizer) {
      NormalizedText form(unicode::decode(token.content));
      normalizer->apply(form);
      text = unicode::encode(form.chars());
      if (text != token.content) normalized[token.id] = text;
    }
    (token.normalized ? normalized_matcher : raw_matcher).add(token, text);
    added.push_back(std::move(token));
  }
  raw_matcher.finish();
  normalized_matcher.finish();
  const BertNormalizer* bert = dynamic_cast<const BertNormalizer*>(normalizer.get());
  if (bert != nullptr && pre_tokenizer && pre_tokenizer->is_bert() && normalized_matcher.empty()) {
    bert_words = std::make_unique<BertWords>(bert->options());
  }
}

void Tokenizer::Parts::run(std::string_view text, bool offsets, int32_t word, TokenRun& out) const {
  const bool ascii = unicode::is_ascii(text);
  if (!ascii) {
    if (const std::optional<size_t> bad = invalid_utf8(text)) {
      fail(ErrorCode::BadInput,
           "tokenizing a text of {} bytes: byte {} (0x{:02x}) is not valid UTF-8; convert the text "
           "to UTF-8",
           text.size(), *bad, unsigned(uint8_t(text[*bad])));
    }
  }
  const size_t expected = out.size() + text.size() / 4 + 4;
  out.ids.reserve(expected);
  out.words.reserve(expected);
  if (offsets) out.offsets.reserve(expected);
  Sink sink{*model, out, offsets, word};
  size_t done = 0;
  int32_t at = 0;  // code points before `done`
  const auto advance = [&](size_t to) {
    const std::string_view part = text.substr(done, to - done);
    done = to;
    return at += ascii ? int32_t(part.size()) : int32_t(code_points(part));
  };
  for (const AddedTokenMatcher::Match& match : raw_matcher.find(text)) {
    if (done < match.begin) {
      run_gap(text.substr(done, match.begin - done), at, sink);
      advance(match.begin);
    }
    const int32_t begin = at;
    sink.token(match.id, {begin, advance(match.end)});
  }
  if (done < text.size()) run_gap(text.substr(done), at, sink);
}

void Tokenizer::Parts::run_gap(std::string_view text, int32_t origin, Sink& sink) const {
  if (bert_words) {
    bert_words->run(text, origin, [&sink](const BertWord& word) { sink.bert_word(word); });
    return;
  }
  NormalizedText form(unicode::decode(text), origin);
  if (normalizer) normalizer->apply(form);
  if (form.size() == 0) return;
  if (normalized_matcher.empty()) return run_words(form, {{0, form.size()}}, sink);
  const std::string bytes = unicode::encode(form.chars());
  size_t done = 0;
  int32_t at = 0;
  const auto advance = [&](size_t to) {
    at += int32_t(code_points(std::string_view(bytes).substr(done, to - done)));
    done = to;
    return at;
  };
  for (const AddedTokenMatcher::Match& match : normalized_matcher.find(bytes)) {
    const int32_t before = at;
    const int32_t begin = advance(match.begin);
    if (before < begin) run_words(form, {{before, begin}}, sink);
    sink.token(match.id, form.span(begin, advance(match.end)));
  }
  if (at < form.size()) run_words(form, {{at, form.size()}}, sink);
}

void Tokenizer::Parts::run_words(const NormalizedText& text,
                                 std::vector<PreTokenizer::Range> ranges, Sink& sink) const {
  if (pre_tokenizer) pre_tokenizer->apply(text.chars(), ranges);
  std::string bytes;
  std::vector<int32_t> index;  // byte -> code point of the word
  for (const auto& [begin, end] : ranges) {
    bytes.clear();
    index.clear();
    for (int32_t i = begin; i < end; ++i) {
      unicode::append(bytes, text.chars()[size_t(i)]);
      index.resize(bytes.size(), i);
    }
    sink.pieces.clear();
    model->tokenize(bytes, sink.pieces);
    const int32_t word = sink.next_word();
    for (const Piece& piece : sink.pieces) {
      sink.out.ids.push_back(piece.id);
      sink.out.words.push_back(word);
      if (!sink.offsets) continue;
      sink.out.offsets.push_back(text.span(index[piece.begin], index[piece.end - 1] + 1));
    }
  }
}

}  // namespace attune
