#include "text/tokenizer_parts.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "text/unicode.h"

namespace attune {
namespace {

using Margins = std::pair<uint32_t, uint32_t>;

/// How many characters at each end of a token are white space, or stand for a blank.
Margins margins_of(std::string_view token) {
  const std::u32string chars = unicode::decode(token);
  const auto stays = [](char32_t c) { return c != U'\u0120' && !unicode::is_white(c); };
  const std::u32string::const_iterator first = std::find_if(chars.begin(), chars.end(), stays);
  const std::u32string::const_reverse_iterator last =
      std::find_if(chars.rbegin(), chars.rend(), stays);
  return {uint32_t(first - chars.begin()), uint32_t(last - chars.rbegin())};
}

/// A text in UTF-8, with the way from characters to bytes and back.
class Utf8Text {
 public:
  explicit Utf8Text(const std::u32string& chars) {
    bytes_.resize(chars.size() * 4);
    begins_.reserve(chars.size() + 1);
    chars_.resize(chars.size() * 4);
    uint32_t at = 0;
    for (size_t i = 0; i < chars.size(); ++i) {
      begins_.push_back(at);
      // Four entries are written, of which the next character keeps what belongs to it.
      std::fill_n(chars_.begin() + at, 4, int32_t(i));
      at += uint32_t(unicode::encode(chars[i], bytes_.data() + at));
    }
    begins_.push_back(at);
    bytes_.resize(at);
  }
  std::string_view bytes() const { return bytes_; }
  size_t begin_of(int32_t c) const { return begins_[size_t(c)]; }
  int32_t char_of(size_t byte) const { return chars_[byte]; }

 private:
  std::string bytes_;
  std::vector<uint32_t> begins_;
  std::vector<int32_t> chars_;
};

}  // namespace

/// Where tokens go, and the scratch space of one call.
struct Tokenizer::Parts::Sink {
  const Parts& parts;
  TokenRun& out;
  bool offsets;
  int32_t fixed_word;
  int32_t word = 0;
  std::vector<Piece> pieces{};
  bool trims = offsets && !parts.post_processor.trims().empty();

  int32_t next_word() { return fixed_word >= 0 ? fixed_word : word++; }

  /// An added token, and the text it was found as.
  void token(int32_t id, std::pair<int32_t, int32_t> span, std::string_view text) {
    out.ids.push_back(id);
    out.words.push_back(next_word());
    if (offsets) out.offsets.push_back(span);
    if (trims) out.margins.push_back(margins_of(text));
  }

  void piece(int32_t id, int32_t index) {
    out.ids.push_back(id);
    out.words.push_back(index);
  }
  void span(std::pair<int32_t, int32_t> span, int32_t id, std::string_view text) {
    out.offsets.push_back(span);
    if (!trims) return;
    out.margins.push_back(parts.model->stands_for_text(id) ? margins_of(text)
                                                           : parts.margins[size_t(id)]);
  }

  void bert_word(const BertWord& from) {
    pieces.clear();
    parts.model->tokenize(from.text, pieces);
    const int32_t index = next_word();
    for (const Piece& part : pieces) {
      piece(part.id, index);
      if (!offsets) continue;
      if (from.spans == nullptr) {
        span({from.first + int32_t(part.begin), from.first + int32_t(part.end)}, part.id, {});
      } else {
        span({from.spans[part.begin].first, from.spans[part.end - 1].second}, part.id, {});
      }
    }
  }
};

std::optional<int32_t> Tokenizer::Parts::id(std::string_view token) const {
  const std::unordered_map<std::string, int32_t>::const_iterator found =
      added_ids.find(std::string(token));
  return found != added_ids.end() ? std::optional<int32_t>(found->second) : model->id(token);
}

const std::string* Tokenizer::Parts::shown(int32_t token_id, bool skip_special_tokens) const {
  const std::unordered_map<int32_t, size_t>::const_iterator found = added_index.find(token_id);
  if (found == added_index.end()) return model->token(token_id);
  const AddedToken& token = added[found->second];
  // Differs: the reference (0.23) keeps a special token whose normalised form is not its content.
  if (skip_special_tokens && token.special) return nullptr;
  const std::unordered_map<int32_t, std::string>::const_iterator form = normalized.find(token_id);
  return form != normalized.end() ? &form->second : &token.content;
}

void Tokenizer::Parts::add_token(AddedToken token, const std::string& where) {
  const std::optional<int32_t> own = model->id(token.content);
  const std::string* other = model->token(token.id);
  const int64_t limit = model->id_bound() * 10 + 1'000'000;
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
  if (!inserted) return;
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

void Tokenizer::Parts::finish(std::vector<AddedToken> tokens, const std::string& where) {
  for (AddedToken& token : tokens) {
    if (!token.content.empty()) add_token(std::move(token), where);
  }
  raw_matcher.finish();
  normalized_matcher.finish();
  if (!normalized_matcher.empty()) return;
  const BertNormalizer* bert = dynamic_cast<const BertNormalizer*>(normalizer.get());
  if (bert != nullptr && pre_tokenizer && pre_tokenizer->is_bert()) {
    bert_words = std::make_unique<BertWords>(bert->options());
  }
  byte_words = ByteWords::make(normalizer.get(), pre_tokenizer.get(), *model);
}

void Tokenizer::Parts::set_post_processor(PostProcessor value) {
  post_processor = std::move(value);
  margins.clear();
  if (post_processor.trims().empty()) return;
  margins.resize(size_t(model->id_bound()));
  for (size_t id = 0; id < margins.size(); ++id) {
    if (const std::string* token = model->token(int32_t(id))) margins[id] = margins_of(*token);
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
  Sink sink{*this, out, offsets, word};
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
    sink.token(match.id, {begin, advance(match.end)},
               text.substr(match.begin, match.end - match.begin));
  }
  if (done < text.size()) run_gap(text.substr(done), at, sink);
}

bool Tokenizer::Parts::run_bytes(std::string_view text, int32_t origin, Sink& sink) const {
  int32_t at = origin;  // code points before the word
  return byte_words->run(
      text, [&](const PreTokenizer::Range& range, const std::vector<Piece>& pieces) {
        const std::string_view word =
            text.substr(size_t(range.first), size_t(range.second - range.first));
        const int32_t index = sink.next_word();
        const bool ascii = unicode::is_ascii(word);
        uint32_t counted = 0;
        int32_t chars = 0;  // that begin in the first `counted` bytes of the word
        const auto count_to = [&](uint32_t to) {
          if (ascii) return chars = int32_t(to);
          for (; counted < to; ++counted) chars += (word[counted] & 0xC0) != 0x80 ? 1 : 0;
          return chars;
        };
        for (const Piece& piece : pieces) {
          sink.piece(piece.id, index);
          if (!sink.offsets) continue;
          // A piece may begin and end within a character, which it stands for then.
          const int32_t begin = at + count_to(piece.begin + 1) - 1;
          sink.span({begin, at + count_to(piece.end)}, piece.id, {});
        }
        if (sink.offsets) at += count_to(uint32_t(word.size()));
      });
}

void Tokenizer::Parts::run_gap(std::string_view text, int32_t origin, Sink& sink) const {
  if (bert_words) {
    bert_words->run(text, origin, [&sink](const BertWord& word) { sink.bert_word(word); });
    return;
  }
  if (byte_words && run_bytes(text, origin, sink)) return;
  NormalizedText form(unicode::decode(text), origin);
  if (normalizer) normalizer->apply(form);
  if (form.size() == 0) return;
  if (normalized_matcher.empty()) return run_words(std::move(form), sink);
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
    if (before < begin) run_words(form.part(before, begin), sink);
    const int32_t end = advance(match.end);
    sink.token(match.id, form.span(begin, end),
               std::string_view(bytes).substr(match.begin, match.end - match.begin));
  }
  if (at < form.size()) run_words(form.part(at, form.size()), sink);
}

void Tokenizer::Parts::run_words(NormalizedText text, Sink& sink) const {
  std::vector<PreTokenizer::Range> ranges{{0, text.size()}};
  if (pre_tokenizer) pre_tokenizer->apply(text, ranges);
  const Utf8Text utf8(text.chars());
  for (const auto& [begin, end] : ranges) {
    const size_t first = utf8.begin_of(begin);
    const std::string_view word = utf8.bytes().substr(first, utf8.begin_of(end) - first);
    sink.pieces.clear();
    model->tokenize(word, sink.pieces);
    const int32_t index = sink.next_word();
    for (const Piece& piece : sink.pieces) {
      sink.piece(piece.id, index);
      if (!sink.offsets) continue;
      sink.span(
          text.span(utf8.char_of(first + piece.begin), utf8.char_of(first + piece.end - 1) + 1),
          piece.id, word.substr(piece.begin, piece.end - piece.begin));
    }
  }
}

}  // namespace attune
