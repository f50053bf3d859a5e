#include "nn/transformer.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Transformer::Transformer(ModelSpec spec, Numerics numerics, Json config) : spec_(std::move(spec)) {
  numerics_ = numerics;
  config_ = std::move(config);
  const SiteMaker sites([this](Site site, int tied_to) { return add_site(site, tied_to); });
  for (size_t i = 0; i < spec_.stacks.size(); ++i) {
    const StackSpec& s = spec_.stacks[i];
    const bool last = i + 1 == spec_.stacks.size();
    stacks_.emplace_back(s, s.shared_tokens ? stacks_[0].tokens() : -1,
                         last ? "final" : s.name + ".final", sites);
  }
  head_ = std::make_unique<HeadLayers>(spec_, stacks_.back().tokens(), sites);
}

bool Transformer::untie(int storage) {
  const Site* output = find("head.proj");
  if (untied() || output == nullptr || output->storage != storage || spec_.output.weight.empty() ||
      !spec_.head.tied)
    return false;
  const WeightSlot& shared = slot_at(static_cast<size_t>(storage));
  std::unique_ptr<WeightSlot> own = std::make_unique<WeightSlot>();
  own->replace(shared.weight, shared.bias, shared.codes);
  own->master = shared.master;
  own->weight_name = spec_.output.weight;
  tied_storage_ = storage;
  sites_[static_cast<size_t>(output->id)].storage = static_cast<int>(slots_.size());
  slots_.push_back(std::move(own));
  return true;
}

void Transformer::retie() {
  if (!untied()) return;
  sites_[static_cast<size_t>(site("head.proj").id)].storage = tied_storage_;
  slots_.pop_back();
  tied_storage_ = -1;
}

int Transformer::tied_storage(const Site& site) const {
  return untied() && site.name == "head.proj" ? tied_storage_ : site.storage;
}

bool Transformer::can_have_bias(const Site& site) const {
  if (site.bias) return true;
  for (const auto& [key, sites] : spec_.optional_biases)
    for (const std::string& end : sites)
      if (ends_with(site.name, end)) return true;
  return false;
}

int64_t Transformer::longest_text() const {
  const StackSpec& s = spec_.first();
  if (s.front != FrontEnd::Tokens || s.positions != PositionScheme::Learned) return 0;
  if (plan_.prepare) plan_.prepare({});  // some make their rows only then
  int64_t prompt = 0, prefix = 0;
  for (const Site& site : sites_) {
    const SitePlan* at = starts_with(site.name, s.name + ".") ? plan_.at(site.id) : nullptr;
    if (at == nullptr) continue;
    for (const SitePlan::Entry& entry : at->edits) {
      const Extend* extend = std::get_if<Extend>(entry.edit);
      if (extend == nullptr || !extend->shift) continue;
      if (extend->keys.defined()) prefix = std::max(prefix, extend->keys.size(-2));
      // Behind the sum of the tables nothing is looked up any more.
      if (extend->rows.defined() && site.name.ends_with("embed.rows"))
        prompt += extend->rows.size(-2);
    }
  }
  return std::max<int64_t>(0, s.max_positions - s.position_offset - prompt - prefix);
}

Tensor shifted_right(const Tensor& ids, const RowIndex& rows, int64_t start, int64_t padding) {
  const Tensor given = ids.to(at::kLong).contiguous();
  const int64_t* from = pointer<const int64_t>(given);
  std::vector<int32_t> result(static_cast<size_t>(rows.rows()));
  for (int64_t b = 0; b < rows.sequences(); ++b)
    for (int64_t r = rows.begin(b); r < rows.end(b); ++r) {
      const int64_t id = r == rows.begin(b) ? start : from[r - 1];
      result[static_cast<size_t>(r)] = static_cast<int32_t>(id < 0 ? padding : id);
    }
  return int32_tensor(result);
}

Stream Transformer::stream_of(const Batch& batch, size_t stack) const {
  const std::string& name = spec_.stacks[stack].name;
  const std::map<std::string, Stream>::const_iterator found = batch.streams.find(name);
  if (found != batch.streams.end()) return found->second;
  if (spec_.stacks.size() == 1 && batch.streams.size() == 1) return batch.streams.begin()->second;
  const std::map<std::string, Stream>::const_iterator source =
      batch.streams.find(spec_.first().name);
  const bool shifts = stack > 0 && source != batch.streams.end() && spec_.decoder_start >= 0 &&
                      spec_.head.kind != HeadKind::Lm && spec_.head.kind != HeadKind::None;
  if (!shifts)
    fail(ErrorCode::BadInput,
         "the batch has no stream \"{}\"; an encoder-decoder needs the decoder's tokens "
         "(decoder_input_ids, or labels to make them from)",
         name);
  Stream shifted;
  shifted.rows = source->second.rows;
  shifted.ids =
      shifted_right(source->second.ids, shifted.rows, spec_.decoder_start, spec_.decoder_padding);
  return shifted;
}

Output Transformer::forward(const Batch& batch, const Want& want) {
  const std::shared_ptr<Forward> pass =
      std::make_shared<Forward>(*this, batch, want);  // shared with the head
  const bool goes_on = batch.cache != nullptr && batch.cache->started;
  Output output;
  Tensor x, memory;
  std::string memory_stream;
  Stream input;
  const bool capture =
      std::any_of(want.sites.begin(), want.sites.end(),
                  [](const std::string& glob) { return glob_match(glob, "logits"); });
  const bool head = (want.head || capture) && spec_.head.kind != HeadKind::None;
  const bool before = head_->wanted(*pass) && (spec_.head.pooler || !head_->pooled());
  for (size_t i = 0; i < stacks_.size(); ++i) {
    const Stack& stack = stacks_[i];
    const bool last = i + 1 == stacks_.size();
    if (goes_on && !last) continue;  // its keys and values are in the cache
    const Stream stream = stream_of(batch, i);
    if (i == 0) input = stream;
    std::function<Tensor(const Forward&)> read;
    if (last && (head || before))
      read = [layers = head_.get(), input, labels = capture ? Tensor() : want.labels](
                 const Forward& at) { return layers->rows_read(at, input, labels); };
    x = stack.blocks(pass, stream, memory, memory_stream, std::move(read));
    // Added rows of an encoder stay for the decoder to read.
    if (last && (head_->needs_every_row() || !pass->pools_prompt()))
      x = pass->finish(x, head_->needs_every_row());
    x = stack.result(*pass, x);
    output.rows[stack.spec().name] = pass->rows();
    memory = x;
    memory_stream = stack.spec().name;
  }
  if (head || before) {
    const Tensor features = head_->features(*pass, x, input);
    if (head) output.head = head_->make(pass, features, capture);
  }
  output.captured = pass->take_captured();
  return output;
}

Batch made_up_batch(const ModelSpec& spec, const std::vector<int64_t>& lengths, uint64_t seed) {
  Batch batch;
  for (size_t i = 0; i < spec.stacks.size(); ++i) {
    const StackSpec& s = spec.stacks[i];
    const bool words = spec.head.kind == HeadKind::Lm || spec.head.kind == HeadKind::None;
    if (i > 0 && !words) continue;  // made from the first stack's tokens
    const Stream64 random = Stream64(seed, "batch").with(s.name);
    Stream& stream = batch.streams[s.name];
    std::vector<int64_t> own(lengths.begin(), lengths.end());
    if (i > 0)
      std::rotate(own.begin(), own.begin() + 1, own.end());  // other lengths than the first
    if (s.front == FrontEnd::Patches) std::fill(own.begin(), own.end(), s.patches.rows());
    stream.rows = RowIndex::from_lengths(own);
    const int64_t rows = stream.rows.rows();
    if (s.front == FrontEnd::Patches) {
      std::vector<float> values;
      for (int64_t v = 0; v < rows * s.patches.values(); ++v)
        values.push_back(static_cast<float>(random.normal(static_cast<uint64_t>(v))));
      stream.values = float_tensor(values).reshape({rows, s.patches.values()});
      continue;
    }
    std::vector<int32_t> ids, types;
    for (int64_t r = 0; r < rows; ++r) {
      const uint64_t at = static_cast<uint64_t>(r);
      ids.push_back(static_cast<int32_t>(
          1 + random.with("ids").below(at, static_cast<uint64_t>(s.vocabulary - 1))));
      if (s.types > 0)
        types.push_back(
            static_cast<int32_t>(random.with("types").below(at, static_cast<uint64_t>(s.types))));
    }
    if (i == 0 && spec.head.token >= 0 && !spec.head.token_absent)
      for (int64_t b = 0; b < stream.rows.sequences(); ++b)
        ids[static_cast<size_t>(stream.rows.end(b) - 1)] = static_cast<int32_t>(spec.head.token);
    stream.ids = int32_tensor(ids);
    if (s.types > 0) stream.types = int32_tensor(types);
  }
  return batch;
}

}  // namespace attune
