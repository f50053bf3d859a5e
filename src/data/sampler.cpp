#include "data/sampler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace attune {

Sampler::Sampler(int64_t examples, uint64_t seed, LengthOf length, SamplerOptions options)
    : examples_(examples), seed_(seed), length_(std::move(length)), options_(options) {
  if (examples < 1) fail(ErrorCode::BadInput, "making batches: there are no examples");
  if ((options.batch_size > 0) == (options.batch_tokens > 0) || options.window < 1)
    fail(ErrorCode::BadInput,
         "making batches: batch_size is {}, batch_tokens {}, window {}; expected one of the first "
         "two, "
         "and the window, to be positive",
         options.batch_size, options.batch_tokens, options.window);
  if (options.batch_size > 0) {
    const int64_t whole = (options.window + options.batch_size - 1) / options.batch_size;
    options_.window = whole * options.batch_size;
  }
  enter();
}

void Sampler::enter() {
  if (order_epoch_ != position_.epoch) {
    order_ = Stream64(seed_, "order")
                 .with(static_cast<uint64_t>(position_.epoch))
                 .permutation(examples_);
    order_epoch_ = position_.epoch;
  }
  const int64_t begin = position_.window * options_.window;
  const int64_t end = std::min(begin + options_.window, examples_);
  const std::vector<int64_t> members(order_.begin() + begin, order_.begin() + end);
  batches_.clear();
  if (options_.batch_tokens > 0) {
    pack(members);
    return;
  }
  for (size_t i = 0; i < members.size(); i += static_cast<size_t>(options_.batch_size)) {
    const size_t stop = std::min(members.size(), i + static_cast<size_t>(options_.batch_size));
    batches_.emplace_back(members.begin() + static_cast<int64_t>(i),
                          members.begin() + static_cast<int64_t>(stop));
  }
}

void Sampler::pack(const std::vector<int64_t>& members) {
  std::vector<int64_t> lengths(members.size());
  for (size_t i = 0; i < members.size(); ++i) lengths[i] = length_(members[i]);
  std::vector<size_t> longest_first(members.size());
  std::iota(longest_first.begin(), longest_first.end(), size_t{0});
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int64_t>> packed;
  std::vector<int64_t> room;
  for (const size_t i : longest_first) {
    size_t place = 0;
    while (place < packed.size() && room[place] < lengths[i]) ++place;
    if (place == packed.size()) {
      packed.emplace_back();
      room.push_back(options_.batch_tokens);
    }
    packed[place].push_back(members[i]);
    room[place] -= lengths[i];
  }
  // Without this, batches would run from long examples to short ones.
  const std::vector<int64_t> shuffled = Stream64(seed_, "batches")
                                            .with(static_cast<uint64_t>(position_.epoch))
                                            .with(static_cast<uint64_t>(position_.window))
                                            .permutation(static_cast<int64_t>(packed.size()));
  for (const int64_t i : shuffled) batches_.push_back(std::move(packed[static_cast<size_t>(i)]));
}

std::vector<int64_t> Sampler::next() {
  std::vector<int64_t> batch = batches_[static_cast<size_t>(position_.batch)];
  if (++position_.batch == static_cast<int64_t>(batches_.size())) {
    position_ = {position_.epoch, position_.window + 1, 0};
    if (position_.window == windows()) position_ = {position_.epoch + 1, 0, 0};
    enter();
  }
  return batch;
}

void Sampler::seek(Position position) {
  const Position before = position_;
  if (position.epoch >= 0 && position.window >= 0 && position.window < windows()) {
    position_ = position;
    enter();
    if (position.batch >= 0 && position.batch < static_cast<int64_t>(batches_.size())) return;
    position_ = before;
    enter();
  }
  fail(ErrorCode::BadInput,
       "resuming: epoch {}, window {}, batch {} does not exist in {} examples in {} windows; the "
       "data "
       "or the batch settings have changed since the checkpoint",
       position.epoch, position.window, position.batch, examples_, windows());
}

double Sampler::consumed() const {
  int64_t count = position_.epoch * examples_ + position_.window * options_.window;
  for (int64_t i = 0; i < position_.batch; ++i)
    count += static_cast<int64_t>(batches_[static_cast<size_t>(i)].size());
  return static_cast<double>(count);
}

}  // namespace attune
