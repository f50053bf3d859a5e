#include "text/post_processor.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace attune {
namespace {

using Item = PostProcessor::Item;

int32_t as_id(const JsonView& json) {
  const int64_t id = json.as_int();
  if (id < 0 || id > INT32_MAX) {
    fail(ErrorCode::Corrupt, "{}: expected a token id, found {}", json.where(), id);
  }
  return int32_t(id);
}

Item read_item(const JsonView& json, const JsonView& specials, bool pair) {
  if (json.has("Sequence")) {
    const JsonView sequence = json.at("Sequence");
    const std::string id = sequence.at("id").as_string();
    if (id != "A" && !(id == "B" && pair)) {
      fail(ErrorCode::Corrupt, "{}: sequence \"{}\" does not exist here; expected {}",
           sequence.where(), id, pair ? "A or B" : "A");
    }
    return {id == "A" ? 0 : 1, int32_t(sequence.at("type_id").as_int()), {}};
  }
  const JsonView special = json.at("SpecialToken");
  const std::string name = special.at("id").as_string();
  if (!specials.has(name)) {
    fail(ErrorCode::Corrupt, "{}: special token \"{}\" is not listed in {}", special.where(), name,
         specials.where());
  }
  Item item{-1, int32_t(special.at("type_id").as_int()), {}};
  for (const JsonView& id : specials.at(name).at("ids").items()) item.special.push_back(as_id(id));
  return item;
}

std::vector<Item> read_template(const JsonView& json, const JsonView& specials, bool pair) {
  std::vector<Item> out;
  bool seen[2] = {false, !pair};
  for (const JsonView& item : json.items()) {
    out.push_back(read_item(item, specials, pair));
    if (out.back().sequence >= 0) seen[out.back().sequence] = true;
  }
  if (!seen[0] || !seen[1]) {
    fail(ErrorCode::Corrupt, "{}: the template does not use sequence {}", json.where(),
         seen[0] ? "B" : "A");
  }
  return out;
}

/// ["[SEP]", 102]
int32_t read_token_id(const JsonView& json) {
  const std::vector<JsonView> parts = json.items();
  if (parts.size() != 2) fail(ErrorCode::Corrupt, "{}: expected [token, id]", json.where());
  return as_id(parts[1]);
}

PostProcessor make_roberta(const JsonView& json) {
  const int32_t cls = read_token_id(json.at("cls")), sep = read_token_id(json.at("sep"));
  const Item first{0, 0, {}}, second{1, 0, {}}, open{-1, 0, {cls}}, close{-1, 0, {sep}};
  PostProcessor out({open, first, close}, {open, first, close, close, second, close});
  if (json.flag("trim_offsets", true)) out.add_trim(json.flag("add_prefix_space", true));
  return out;
}

PostProcessor make_byte_level_trim(const JsonView& json) {
  PostProcessor out;
  if (json.flag("trim_offsets", true)) out.add_trim(json.flag("add_prefix_space", true));
  return out;
}

/// Differs: behind a template, ByteLevel leaves the sequences' numbers alone, which the reference
/// counts anew with every special token as a sequence.
PostProcessor make_post_sequence(const JsonView& json) {
  PostProcessor out;
  std::vector<bool> trims;
  int templates = 0;
  for (const JsonView& part : json.at("processors").items()) {
    const PostProcessor next = make_post_processor(part);
    trims.insert(trims.end(), next.trims().begin(), next.trims().end());
    if (part.at("type").as_string() == "ByteLevel") continue;
    if (++templates > 1) {
      fail(ErrorCode::Unsupported,
           "{}: a sequence of several post-processors that put in special tokens is not supported; "
           "expected one, beside ByteLevel",
           json.where());
    }
    out = next;
  }
  out.set_trims(std::move(trims));
  return out;
}

/// Takes the margins off; `first`: the first token of its sequence.
void take_margins(std::pair<int32_t, int32_t>& offsets, std::pair<uint32_t, uint32_t> margins,
                  bool first, bool prefix_space) {
  int32_t left = int32_t(margins.first);
  const int32_t right = int32_t(margins.second);
  if (prefix_space && left == 1 && (first || offsets.first == 0)) left = 0;
  offsets.first = std::min(offsets.first + left, offsets.second);
  if (offsets.second >= right) offsets.second = std::max(offsets.second - right, offsets.first);
}

void append_special(Encoding& out, const Item& item, bool offsets) {
  for (const int32_t id : item.special) {
    out.ids.push_back(id);
    out.word_ids.push_back(-1);
    if (offsets) out.offsets.emplace_back(0, 0);
    out.type_ids.push_back(item.type_id);
    out.sequence_ids.push_back(-1);
    out.special_mask.push_back(1);
  }
}

}  // namespace

PostProcessor::PostProcessor() : single_{{0, 0, {}}}, pair_{{0, 0, {}}, {1, 1, {}}} {}
PostProcessor::PostProcessor(std::vector<Item> single, std::vector<Item> pair)
    : single_(std::move(single)), pair_(std::move(pair)) {}

void PostProcessor::append(Encoding& out, const TokenSlice& slice, const Item& item,
                           bool offsets) const {
  const std::ptrdiff_t begin = std::ptrdiff_t(slice.begin), end = std::ptrdiff_t(slice.end);
  const TokenRun& run = *slice.run;
  out.ids.insert(out.ids.end(), run.ids.begin() + begin, run.ids.begin() + end);
  out.word_ids.insert(out.word_ids.end(), run.words.begin() + begin, run.words.begin() + end);
  if (offsets) {
    out.offsets.insert(out.offsets.end(), run.offsets.begin() + begin, run.offsets.begin() + end);
    const size_t first = out.offsets.size() - slice.size();
    for (const bool prefix_space : trims_) {
      for (size_t i = 0; i < slice.size(); ++i) {
        take_margins(out.offsets[first + i], run.margins[slice.begin + i], i == 0, prefix_space);
      }
    }
  }
  out.type_ids.insert(out.type_ids.end(), slice.size(), item.type_id);
  out.sequence_ids.insert(out.sequence_ids.end(), slice.size(), item.sequence);
  out.special_mask.insert(out.special_mask.end(), slice.size(), 0);
}

int64_t PostProcessor::added(bool pair) const {
  int64_t count = 0;
  for (const Item& item : pair ? pair_ : single_) count += int64_t(item.special.size());
  return count;
}

Encoding PostProcessor::assemble(const TokenSlice& a, const TokenSlice* b, bool add_special_tokens,
                                 bool offsets) const {
  Encoding out;
  const size_t total = a.size() + (b != nullptr ? b->size() : 0) + size_t(added(b != nullptr));
  out.ids.reserve(total);
  out.type_ids.reserve(total);
  out.word_ids.reserve(total);
  out.sequence_ids.reserve(total);
  out.special_mask.reserve(total);
  if (offsets) out.offsets.reserve(total);
  for (const Item& item : b != nullptr ? pair_ : single_) {
    if (item.sequence < 0) {
      if (add_special_tokens) append_special(out, item, offsets);
    } else {
      append(out, item.sequence == 0 ? a : *b, item, offsets);
    }
  }
  return out;
}

std::vector<int32_t> PostProcessor::special_ids() const {
  std::vector<int32_t> out;
  for (const std::vector<Item>* items : {&single_, &pair_}) {
    for (const Item& item : *items) {
      out.insert(out.end(), item.special.begin(), item.special.end());
    }
  }
  return out;
}

PostProcessor make_bert_post_processor(int32_t cls, int32_t sep) {
  const Item first{0, 0, {}}, second{1, 1, {}}, open{-1, 0, {cls}}, close{-1, 0, {sep}};
  return {{open, first, close}, {open, first, close, second, {-1, 1, {sep}}}};
}

PostProcessor make_post_processor(const JsonView& json) {
  if (json.is_null()) return {};
  const std::string type = json.at("type").as_string();
  if (type == "TemplateProcessing") {
    const JsonView specials = json.at("special_tokens");
    return {read_template(json.at("single"), specials, false),
            read_template(json.at("pair"), specials, true)};
  }
  if (type == "BertProcessing") {
    const int32_t cls = read_token_id(json.at("cls"));
    return make_bert_post_processor(cls, read_token_id(json.at("sep")));
  }
  if (type == "RobertaProcessing") return make_roberta(json);
  if (type == "ByteLevel") return make_byte_level_trim(json);
  if (type == "Sequence") return make_post_sequence(json);
  fail(ErrorCode::Unsupported,
       "{}: post-processor type \"{}\" is not supported; supported: BertProcessing, ByteLevel, "
       "RobertaProcessing, Sequence, TemplateProcessing",
       json.where(), type);
}

}  // namespace attune
