#include "text/bpe.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace attune {
namespace {

constexpr std::string_view kBlank = "\u2581";
constexpr size_t kShort = 48;  // symbols up to which scanning beats a heap

}  // namespace

/// A word on its way: ids and lengths in bytes, and the rule for every symbol and its right
/// neighbour.
struct Bpe::Symbols {
  std::vector<int32_t> ids;
  std::vector<uint32_t> sizes;
  std::vector<MergeRule> rules;

  void add(int32_t id, uint32_t size) {
    ids.push_back(id);
    sizes.push_back(size);
  }
  void join(size_t at) {
    ids[at] = rules[at].id;
    sizes[at] += sizes[at + 1];
  }
};

Bpe::Bpe(BpeOptions options, Vocabulary vocabulary, const Merges& merges, const std::string& where)
    : options_(std::move(options)),
      pieces_(std::move(vocabulary), where + ".vocab"),
      rules_(merges.size()),
      plain_(options_.prefix.empty() && options_.suffix.empty()) {
  if (!options_.unknown_token.empty()) unknown_ = pieces_.find(options_.unknown_token);
  read_merges(merges, where);
  prepare_symbols();
}

void Bpe::read_merges(const Merges& merges, const std::string& where) {
  cuts_at_blank_ = plain_ && pieces_.find(kBlank) >= 0;
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    joined = left;
    joined += std::string_view(right).substr(std::min(options_.prefix.size(), right.size()));
    int32_t ids[3];
    const std::string* const parts[3] = {&left, &right, &joined};
    for (int k = 0; k < 3; ++k) {
      ids[k] = pieces_.find(*parts[k]);
      if (ids[k] >= 0) continue;
      fail(ErrorCode::Corrupt,
           "{}.merges[{}]: joining \"{}\" and \"{}\" needs the piece \"{}\", which is not in the "
           "vocabulary of {} pieces",
           where, i, left, right, *parts[k], pieces_.size());
    }
    rules_.add(ids[0], ids[1], {uint32_t(i), ids[2]});
    if (right.starts_with(kBlank) && !left.ends_with(kBlank)) cuts_at_blank_ = false;
  }
}

void Bpe::prepare_symbols() {
  for (int byte = 0; byte < 256; ++byte) {
    fallback_ids_[size_t(byte)] = pieces_.find(fmt::format("<0x{:02X}>", byte));
  }
  for (char c = 0; c >= 0 && c < 127; ++c) ascii_ids_[size_t(c)] = pieces_.find({&c, 1});
  ascii_ids_[127] = pieces_.find("\x7F");
  byte_ids_ = std::make_unique<ByteIds>();
  covers_bytes_ = true;
  for (int kind = 0; kind < 4; ++kind) {
    for (int byte = 0; byte < 256; ++byte) {
      const char raw = char(byte);
      const int32_t id = symbol(byte_level::encode({&raw, 1}), kind < 2, kind % 3 == 0);
      (*byte_ids_)[size_t(kind)][size_t(byte)] = id;
      if (id < 0) covers_bytes_ = false;
    }
  }
}

int32_t Bpe::symbol(std::string_view c, bool first, bool last) const {
  if (plain_) return pieces_.find(c);
  std::string text = first ? "" : options_.prefix;
  text += c;
  if (last) text += options_.suffix;
  return pieces_.find(text);
}

/// `pending`: bytes of unknown characters that have no token yet.
void Bpe::append_unknown(std::string_view c, Symbols& out, uint32_t& pending) const {
  if (options_.byte_fallback &&
      std::all_of(c.begin(), c.end(), [&](char b) { return fallback_ids_[uint8_t(b)] >= 0; })) {
    // Bytes overtake unknown characters before them, as in the reference.
    for (const char byte : c) out.add(fallback_ids_[uint8_t(byte)], 1);
    return;
  }
  if (options_.unknown_token.empty()) return;
  if (unknown_ < 0) {
    fail(ErrorCode::BadInput,
         "tokenizing \"{}\": it is not in the vocabulary, and neither is the unknown token \"{}\"; "
         "correct unk_token in the tokenizer's file",
         c, options_.unknown_token);
  }
  if (pending > 0 && !options_.fuse_unknown) {
    out.add(unknown_, pending);
    pending = 0;
  }
  pending += uint32_t(c.size());
}

void Bpe::split(std::string_view word, Symbols& out) const {
  uint32_t pending = 0;
  for (const char *at = word.data(), *end = at + word.size(); at < end;) {
    const char* const begin = at;
    const char32_t value = unicode::next(at);
    const std::string_view c(begin, size_t(at - begin));
    const int32_t id =
        plain_ && value < 128 ? ascii_ids_[value] : symbol(c, begin == word.data(), at == end);
    if (id < 0) {
      append_unknown(c, out, pending);
      continue;
    }
    if (pending > 0) out.add(unknown_, pending);
    pending = 0;
    out.add(id, uint32_t(c.size()));
  }
  if (pending > 0) out.add(unknown_, pending);
}

void Bpe::split_bytes(std::string_view word, Symbols& out) const {
  const size_t last = word.size() - 1;
  for (size_t i = 0; i <= last; ++i) {
    const size_t kind = last == 0 ? 0 : i == 0 ? 1 : i < last ? 2 : 3;
    out.add((*byte_ids_)[kind][uint8_t(word[i])], 1);
  }
}

void Bpe::merge(Symbols& symbols, std::vector<Piece>& out) const {
  std::vector<int32_t>& ids = symbols.ids;
  std::vector<MergeRule>& rules = symbols.rules;
  size_t count = ids.size();
  rules.resize(count);
  for (size_t i = 0; i + 1 < count; ++i) rules[i] = rules_.find(ids[i], ids[i + 1]);
  const bool is_long = count > kShort;
  if (is_long) {
    merge_long(symbols);
    count = ids.size();
  }
  while (count > 1 && !is_long) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) best = rules[i].rank < rules[best].rank ? i : best;
    if (rules[best].rank == MergeRule::kNone) break;
    symbols.join(best);
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      ids[i] = ids[i + 1];
      symbols.sizes[i] = symbols.sizes[i + 1];
      rules[i] = rules[i + 1];
    }
    if (best > 0) rules[best - 1] = rules_.find(ids[best - 1], ids[best]);
    if (best + 1 < count) rules[best] = rules_.find(ids[best], ids[best + 1]);
  }
  uint32_t at = out.empty() ? 0 : out.back().end;
  for (size_t i = 0; i < count; ++i) {
    out.push_back({ids[i], at, at + symbols.sizes[i]});
    at = out.back().end;
  }
}

/// The same with a list of neighbours and a heap; leaves the joined symbols only.
void Bpe::merge_long(Symbols& symbols) const {
  const size_t count = symbols.ids.size();
  std::vector<uint32_t> previous(count), next(count);
  std::vector<uint64_t> heap;  // rank, then place
  const auto entry = [](MergeRule rule, size_t at) { return uint64_t(rule.rank) << 32 | at; };
  for (size_t i = 0; i < count; ++i) {
    previous[i] = uint32_t(i) - 1;
    next[i] = uint32_t(i) + 1;
    if (symbols.rules[i].rank == MergeRule::kNone || i + 1 == count) {
      symbols.rules[i] = {};
    } else {
      heap.push_back(entry(symbols.rules[i], i));
    }
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto renew = [&](size_t at) {
    symbols.rules[at] = {};
    if (next[at] < count) symbols.rules[at] = rules_.find(symbols.ids[at], symbols.ids[next[at]]);
    if (symbols.rules[at].rank == MergeRule::kNone) return;
    heap.push_back(entry(symbols.rules[at], at));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const size_t at = uint32_t(top);
    // An entry is stale when its symbol was swallowed or has another neighbour now.
    if (symbols.sizes[at] == 0 || entry(symbols.rules[at], at) != top) continue;
    const size_t right = next[at];
    symbols.ids[at] = symbols.rules[at].id;
    symbols.sizes[at] += symbols.sizes[right];
    symbols.sizes[right] = 0;
    next[at] = next[right];
    if (next[at] < count) previous[next[at]] = uint32_t(at);
    renew(at);
    if (previous[at] < count) renew(previous[at]);
  }
  size_t kept = 0;
  for (size_t i = 0; i < count; ++i) {
    if (symbols.sizes[i] == 0) continue;
    symbols.ids[kept] = symbols.ids[i];
    symbols.sizes[kept++] = symbols.sizes[i];
  }
  symbols.ids.resize(kept);
  symbols.sizes.resize(kept);
}

/// Pieces follow on those in `out`, which hold pieces of the same word only.
void Bpe::tokenize_part(std::string_view part, std::vector<Piece>& out) const {
  const bool cached = part.size() <= WordCache::kLongestWord;
  const uint64_t hash = cached ? WordCache::hash(part) : 0;
  const uint32_t shift = out.empty() ? 0 : out.back().end;
  if (cached && words_.find(part, hash, shift, out)) return;
  Symbols symbols;
  split(part, symbols);
  std::vector<Piece> pieces;
  merge(symbols, pieces);
  if (cached) words_.add(part, hash, pieces.data(), pieces.size());
  for (const Piece& piece : pieces)
    out.push_back({piece.id, shift + piece.begin, shift + piece.end});
}

void Bpe::tokenize(std::string_view word, std::vector<Piece>& out) const {
  if (options_.ignore_merges && word.size() <= pieces_.ids().longest()) {
    const int32_t whole = pieces_.find(word);
    if (whole >= 0) return out.push_back({whole, 0, uint32_t(word.size())});
  }
  if (!cuts_at_blank_ || word.size() <= kBlank.size()) return tokenize_part(word, out);
  // Where another character meets U+2581 no merge takes place, so that the parts are words of their
  // own, which the cache knows.
  size_t begin = 0;
  for (size_t at = word.find(kBlank, 1); at != word.npos; at = word.find(kBlank, at + 1)) {
    if (word.substr(0, at).ends_with(kBlank)) continue;
    tokenize_part(word.substr(begin, at - begin), out);
    begin = at;
  }
  tokenize_part(word.substr(begin), out);
}

void Bpe::tokenize_bytes(std::string_view word, std::vector<Piece>& out) const {
  const bool cached = word.size() <= WordCache::kLongestWord;
  const uint64_t hash = cached ? WordCache::hash(word) : 0;
  if (cached && byte_words_.find(word, hash, 0, out)) return;
  int32_t whole = -1;
  if (options_.ignore_merges && word.size() <= pieces_.ids().longest()) {
    whole = pieces_.find(byte_level::encode(word));
  }
  if (whole >= 0) {
    out.push_back({whole, 0, uint32_t(word.size())});
  } else {
    Symbols symbols;
    split_bytes(word, symbols);
    merge(symbols, out);
  }
  if (cached) byte_words_.add(word, hash, out.data(), out.size());
}

}  // namespace attune
