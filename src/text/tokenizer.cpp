#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/tokenizer_parts.h"

namespace attune {
namespace {

using Truncate = EncodeOptions::Truncate;

/// How many tokens of each sequence may stay.
struct Room {
  size_t a, b;
};

/// The shorter sequence stays whole where it can; what is left is for the longer one.
Room share(size_t a, size_t b, size_t limit) {
  const bool swap = a > b;
  size_t low = std::min(a, b), high = std::max(a, b);
  high = low > limit ? low : std::max(low, limit - low);
  if (low + high > limit) {
    low = limit / 2;
    high = low + limit % 2;
  }
  return swap ? Room{high, low} : Room{low, high};
}

Room room_for(size_t a, size_t b, bool pair, int64_t max_length, int64_t added, Truncate truncate) {
  if (max_length < added) {
    fail(ErrorCode::BadInput,
         "tokenizing with max_length {}: the {} special tokens alone are more; raise max_length",
         max_length, added);
  }
  const size_t limit = size_t(max_length - added);
  if (a + b <= limit) return {a, b};
  if (limit == 0) return {0, 0};
  if (truncate == Truncate::LongestFirst) return pair ? share(a, b, limit) : Room{limit, 0};
  const bool first = truncate == Truncate::OnlyFirst;
  if (!first && !pair) {
    fail(ErrorCode::BadInput,
         "tokenizing with max_length {}: only the second sequence may be shortened, but there is "
         "one "
         "sequence only; use OnlyFirst or LongestFirst",
         max_length);
  }
  const size_t remove = a + b - limit;
  if ((first ? a : b) <= remove) {
    fail(ErrorCode::BadInput,
         "tokenizing with max_length {}: the sequences have {} and {} tokens, so the {} one alone "
         "cannot be shortened enough; raise max_length or use LongestFirst",
         max_length, a, b, first ? "first" : "second");
  }
  return first ? Room{a - remove, b} : Room{a, b - remove};
}

TokenSlice cut(const TokenRun& run, size_t size, bool left) {
  return left ? TokenSlice{&run, run.size() - size, run.size()} : TokenSlice{&run, 0, size};
}

/// Windows of `size` tokens that overlap by `stride`, from the side that is kept.
std::vector<TokenSlice> windows(const TokenRun& run, size_t size, size_t stride, bool left) {
  std::vector<TokenSlice> out;
  const size_t total = run.size();
  if (size >= total) return {{&run, 0, total}};
  if (stride >= size) {
    fail(ErrorCode::BadInput,
         "tokenizing in windows: a stride of {} tokens leaves no room to move on in windows that "
         "hold "
         "{} tokens beside special tokens and the other sequence; lower stride or raise max_length",
         stride, size);
  }
  for (size_t at = 0;; at += size - stride) {
    const size_t end = std::min(at + size, total);
    out.push_back(left ? TokenSlice{&run, total - end, total - at} : TokenSlice{&run, at, end});
    if (end == total) return out;
  }
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

namespace {

Encoding finish(const Tokenizer::Parts& parts, const TokenRun& a, const TokenRun* b,
                const EncodeOptions& options) {
  const bool pair = b != nullptr;
  const size_t total = a.size() + (pair ? b->size() : 0);
  Room room{a.size(), pair ? b->size() : 0};
  if (options.max_length > 0) {
    const int64_t added = options.add_special_tokens ? parts.post_processor.added(pair) : 0;
    room = room_for(room.a, room.b, pair, options.max_length, added, options.truncate);
  }
  const TokenSlice first = cut(a, room.a, parts.truncate_left);
  const TokenSlice second = pair ? cut(*b, room.b, parts.truncate_left) : TokenSlice{};
  Encoding out = parts.post_processor.assemble(first, pair ? &second : nullptr,
                                               options.add_special_tokens, options.offsets);
  out.dropped = int64_t(total - room.a - room.b);
  return out;
}

void check_window(int64_t max_length, int64_t stride) {
  if (max_length > 0 && stride >= 0) return;
  fail(ErrorCode::BadInput,
       "tokenizing in windows: found max_length {} and stride {}; expected max_length of 1 or more "
       "and "
       "stride of 0 or more",
       max_length, stride);
}

}  // namespace

Encoding Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  TokenRun run;
  parts_->run(text, options.offsets, -1, run);
  return finish(*parts_, run, nullptr, options);
}

Encoding Tokenizer::encode_pair(std::string_view a, std::string_view b,
                                const EncodeOptions& options) const {
  TokenRun first, second;
  parts_->run(a, options.offsets, -1, first);
  parts_->run(b, options.offsets, -1, second);
  return finish(*parts_, first, &second, options);
}

Encoding Tokenizer::encode_words(const std::vector<std::string>& words,
                                 const EncodeOptions& options) const {
  TokenRun run;
  for (size_t i = 0; i < words.size(); ++i) {
    parts_->run(words[i], options.offsets, int32_t(i), run);
  }
  return finish(*parts_, run, nullptr, options);
}

std::vector<Encoding> Tokenizer::encode_windows(std::string_view text, int64_t max_length,
                                                int64_t stride, bool add_special_tokens) const {
  check_window(max_length, stride);
  TokenRun run;
  parts_->run(text, true, -1, run);
  const int64_t added = add_special_tokens ? parts_->post_processor.added(false) : 0;
  const Room room =
      room_for(run.size(), 0, false, max_length, added, EncodeOptions::Truncate::LongestFirst);
  std::vector<Encoding> out;
  for (const TokenSlice& slice : windows(run, room.a, size_t(stride), parts_->truncate_left)) {
    out.push_back(parts_->post_processor.assemble(slice, nullptr, add_special_tokens, true));
  }
  return out;
}

std::vector<Encoding> Tokenizer::encode_windows(std::string_view a, std::string_view b,
                                                int64_t max_length, int64_t stride,
                                                EncodeOptions::Truncate truncate,
                                                bool add_special_tokens) const {
  check_window(max_length, stride);
  TokenRun first, second;
  parts_->run(a, true, -1, first);
  parts_->run(b, true, -1, second);
  const int64_t added = add_special_tokens ? parts_->post_processor.added(true) : 0;
  const Room room = room_for(first.size(), second.size(), true, max_length, added, truncate);
  const bool left = parts_->truncate_left;
  const std::vector<TokenSlice> slices_a = windows(first, room.a, size_t(stride), left);
  const std::vector<TokenSlice> slices_b = windows(second, room.b, size_t(stride), left);
  std::vector<Encoding> out;
  const auto add = [&](size_t i, size_t j) {
    out.push_back(
        parts_->post_processor.assemble(slices_a[i], &slices_b[j], add_special_tokens, true));
  };
  // The reference lists the first pair, then the other windows of A, then the rest of the first
  // one.
  add(0, 0);
  for (size_t i = 1; i < slices_a.size(); ++i) {
    for (size_t j = 0; j < slices_b.size(); ++j) add(i, j);
  }
  for (size_t j = 1; j < slices_b.size(); ++j) add(0, j);
  return out;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* const token = parts_->shown(id, skip_special_tokens);
    if (token != nullptr) tokens.push_back(*token);
  }
  return parts_->decoder->decode(std::move(tokens));
}

std::string Tokenizer::text(const std::vector<int32_t>& ids) const {
  std::string result = decode(ids);
  if (parts_->cleans_up) clean_up_spaces(result);
  return result;
}

const std::string& Tokenizer::token(int32_t id) const {
  const std::unordered_map<int32_t, size_t>::const_iterator found = parts_->added_index.find(id);
  if (found != parts_->added_index.end()) return parts_->added[found->second].content;
  const std::string* token = parts_->model->token(id);
  if (token == nullptr) {
    fail(ErrorCode::BadInput,
         "looking up token id {}: the tokenizer has no such id; ids go from 0 to {}", id,
         vocab_size() - 1);
  }
  return *token;
}

int64_t Tokenizer::vocab_size() const {
  int64_t size = parts_->model->id_bound();
  for (const AddedToken& token : parts_->added) size = std::max(size, int64_t(token.id) + 1);
  return size;
}

std::optional<int32_t> Tokenizer::id(std::string_view token) const {
  return parts_->id(token);
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return parts_->pad;
}
std::optional<int32_t> Tokenizer::cls_id() const {
  return parts_->cls;
}
std::optional<int32_t> Tokenizer::sep_id() const {
  return parts_->sep;
}
std::optional<int32_t> Tokenizer::mask_id() const {
  return parts_->mask;
}
std::optional<int32_t> Tokenizer::unk_id() const {
  return parts_->unk;
}
std::optional<int32_t> Tokenizer::bos_id() const {
  return parts_->bos;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return parts_->eos;
}
int64_t Tokenizer::model_max_length() const {
  return parts_->model_max_length;
}
const std::string& Tokenizer::fingerprint() const {
  return parts_->fingerprint;
}

}  // namespace attune
