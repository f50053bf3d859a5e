#include "decode/greedy.h"

#include <algorithm>

#include "base/error.h"
#include "core/cache.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

using Ids = std::vector<int32_t>;

Stream packed(const std::vector<Ids>& sequences) {
  std::vector<int64_t> lengths;
  Ids all;
  for (const Ids& ids : sequences) {
    lengths.push_back(static_cast<int64_t>(ids.size()));
    all.insert(all.end(), ids.begin(), ids.end());
  }
  Stream stream;
  stream.rows = RowIndex::from_lengths(lengths);
  stream.ids = int32_tensor(all);
  return stream;
}

/// The sequences that still run.
class Decoding {
 public:
  Decoding(Model& model, const std::vector<Ids>& prompts, const GreedyOptions& options,
           const Tensor& sets)
      : model_(model), options_(options), sets_(sets), results_(prompts.size()) {
    encoder_ = model.find("enc.embed.tok") != nullptr;
    for (size_t i = 0; i < prompts.size(); ++i) running_.push_back(static_cast<int64_t>(i));
    if (encoder_) sources_ = prompts;
    texts_ = encoder_ ? std::vector<Ids>(prompts.size(), Ids{options.decoder_start}) : prompts;
  }

  std::vector<Ids> run() {
    at::NoGradGuard no_grad;
    for (int64_t step = 0; step < options_.max_new_tokens && !running_.empty(); ++step) take(step);
    return std::move(results_);
  }

 private:
  /// One token for every running sequence.
  void take(int64_t step) {
    Batch batch;
    const bool goes_on = options_.cached && step > 0;
    std::vector<Ids> decoder;
    for (const Ids& text : texts_) decoder.push_back(goes_on ? Ids{text.back()} : text);
    const Stream stream = packed(decoder);
    batch.streams["dec"] = stream;
    if (encoder_ && !goes_on) batch.streams["enc"] = packed(sources_);
    if (sets_.defined()) batch.sets = sets_.index_select(0, int64_tensor(running_)).contiguous();
    if (options_.cached) batch.cache = &cache_;
    const Output output = model_.forward(batch, {});
    const Tensor next = last_logits(*output.head, stream.rows).argmax(-1);
    extend(pointer<const int64_t>(next));
  }

  Tensor last_logits(const Head& head, const RowIndex& rows) const {
    std::vector<int32_t> last;
    for (int64_t b = 0; b < rows.sequences(); ++b)
      last.push_back(static_cast<int32_t>(rows.end(b) - 1));
    const Tensor which = int32_tensor(last);
    // Adapter sets act on the rows of their own sequences, so all rows go through the head.
    if (sets_.defined()) return head.logits(Tensor()).index_select(0, which.to(at::kLong));
    return head.logits(which);
  }

  void extend(const int64_t* next) {
    std::vector<int64_t> kept;
    for (size_t i = 0; i < running_.size(); ++i) {
      const int32_t id = static_cast<int32_t>(next[i]);
      results_[static_cast<size_t>(running_[i])].push_back(id);
      texts_[i].push_back(id);
      const bool ended = std::count(options_.eos.begin(), options_.eos.end(), id) > 0;
      if (!ended) kept.push_back(static_cast<int64_t>(i));
    }
    if (kept.size() == running_.size()) return;
    if (options_.cached) cache_.keep(kept);
    for (size_t i = 0; i < kept.size(); ++i) {
      const size_t from = static_cast<size_t>(kept[i]);
      running_[i] = running_[from];
      texts_[i] = texts_[from];
      if (encoder_) sources_[i] = sources_[from];
    }
    running_.resize(kept.size());
    texts_.resize(kept.size());
    if (encoder_) sources_.resize(kept.size());
  }

  Model& model_;
  const GreedyOptions& options_;
  Tensor sets_;
  bool encoder_ = false;
  std::vector<int64_t> running_;  // their places among the prompts
  std::vector<Ids> texts_, sources_;
  std::vector<Ids> results_;
  Cache cache_;
};

}  // namespace

std::vector<Ids> greedy(Model& model, const std::vector<Ids>& prompts, const GreedyOptions& options,
                        const Tensor& sets) {
  const Site* table = model.find("dec.embed.tok");
  const Site* logits = model.find("logits");
  if (table == nullptr || logits == nullptr || logits->out != table->in)
    fail(ErrorCode::Unsupported,
         "generating text: this model has no language model head; load a causal language model or "
         "an encoder-decoder for conditional generation");
  if (options.max_new_tokens < 1)
    fail(ErrorCode::BadInput, "generating text: max_new_tokens is {}; at least 1 was expected",
         options.max_new_tokens);
  if (model.find("enc.embed.tok") != nullptr && options.decoder_start < 0)
    fail(ErrorCode::BadInput,
         "generating text: this encoder-decoder needs decoder_start_token_id, and config.json and "
         "generation_config.json give none");
  for (size_t i = 0; i < prompts.size(); ++i)
    if (prompts[i].empty())
      fail(ErrorCode::BadInput, "generating text: prompt {} has no tokens", i);
  return Decoding(model, prompts, options, sets).run();
}

}  // namespace attune
