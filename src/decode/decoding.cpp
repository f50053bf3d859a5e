#include "decode/decoding.h"

#include <set>

#include "base/text.h"
#include "tensor/rows.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

Stream packed(const std::vector<Decoding::Ids>& sequences) {
  std::vector<int64_t> lengths;
  Decoding::Ids all;
  for (const Decoding::Ids& ids : sequences) {
    lengths.push_back(static_cast<int64_t>(ids.size()));
    all.insert(all.end(), ids.begin(), ids.end());
  }
  Stream stream;
  stream.rows = RowIndex::from_lengths(lengths);
  stream.ids = int32_tensor(all);
  return stream;
}

template <class T>
std::vector<T> chosen(const std::vector<T>& all, const std::vector<int64_t>& which) {
  std::vector<T> result;
  for (const int64_t i : which) result.push_back(all[static_cast<size_t>(i)]);
  return result;
}

bool goes_on(const Model& model, const Plan& plan) {
  for (const Site& site : model.sites()) {
    const SitePlan* at = starts_with(site.name, "enc.") ? nullptr : plan.at(site.id);
    if (at == nullptr) continue;
    if (!at->experts.empty()) return false;
    for (const SitePlan::Entry& entry : at->edits)
      if (!attune::goes_on(site, *entry.edit)) return false;
  }
  return true;
}

/// True when every edit that acts on these sequences lets them grow by new rows alone.
bool goes_on(const Model& model, const Tensor& sets) {
  const Plan& plan = model.plan();
  if (!sets.defined()) return goes_on(model, plan);
  const int32_t* set = pointer<const int32_t>(sets);
  for (const int32_t one : std::set<int32_t>(set, set + sets.numel()))
    if (one >= 0 && plan.of_set && !goes_on(model, plan.of_set(one))) return false;
  return true;
}

}  // namespace

Decoding::Decoding(Model& model, const std::vector<Ids>& prompts, int32_t start, bool cached,
                   const Tensor& sets)
    : model_(model), sets_(sets), cached_(cached && goes_on(model, sets)) {
  encoder_ = model.find("enc.embed.tok") != nullptr;
  for (size_t i = 0; i < prompts.size(); ++i) prompts_.push_back(static_cast<int64_t>(i));
  if (encoder_) sources_ = prompts;
  texts_ = encoder_ ? std::vector<Ids>(prompts.size(), Ids{start}) : prompts;
}

Tensor Decoding::next_logits() {
  Batch batch;
  const bool goes_on = cached_ && started_;
  std::vector<Ids> fresh;
  for (const Ids& text : texts_) fresh.push_back(goes_on ? Ids{text.back()} : text);
  const Stream stream = packed(fresh);
  batch.streams["dec"] = stream;
  if (encoder_ && !goes_on) batch.streams["enc"] = packed(sources_);
  if (sets_.defined()) batch.sets = sets_.index_select(0, int64_tensor(prompts_)).contiguous();
  if (cached_) batch.cache = &cache_;
  const Output output = model_.forward(batch, {});
  started_ = true;
  std::vector<int32_t> last;
  for (int64_t b = 0; b < stream.rows.sequences(); ++b)
    last.push_back(static_cast<int32_t>(stream.rows.end(b) - 1));
  const Tensor which = int32_tensor(last);
  // Adapter sets act on the rows of their own sequences, so all rows go through the head.
  if (sets_.defined()) return output.head->logits(Tensor()).index_select(0, which.to(at::kLong));
  return output.head->logits(which);
}

void Decoding::go_on(const std::vector<int64_t>& from, const std::vector<int32_t>& tokens) {
  bool same = from.size() == texts_.size();
  for (size_t i = 0; same && i < from.size(); ++i) same = from[i] == static_cast<int64_t>(i);
  if (!same) {
    if (cached_) cache_.keep(from);
    prompts_ = chosen(prompts_, from);
    texts_ = chosen(texts_, from);
    if (encoder_) sources_ = chosen(sources_, from);
  }
  for (size_t i = 0; i < tokens.size(); ++i) texts_[i].push_back(tokens[i]);
}

}  // namespace attune
