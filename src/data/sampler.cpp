#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"

namespace attune {

namespace {

/// `total` in whole parts by weight, largest remainders first.
std::vector<int64_t> shares_of(const std::vector<MixtureSource>& sources, int64_t total) {
  double weights = 0;
  for (const MixtureSource& source : sources) weights += source.weight;
  std::vector<int64_t> shares;
  std::vector<double> remainders;
  int64_t given = 0;
  for (const MixtureSource& source : sources) {
    const double exact = static_cast<double>(total) * source.weight / weights;
    shares.push_back(static_cast<int64_t>(exact));
    remainders.push_back(exact - static_cast<double>(shares.back()));
    given += shares.back();
  }
  std::vector<size_t> order(sources.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  for (size_t i = 0; given < total; ++i, ++given) ++shares[order[i % order.size()]];
  return shares;
}

std::string name_of(const MixtureSource& source, size_t number) {
  return source.name.empty() ? format("source {}", number + 1) : source.name;
}

}  // namespace

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
  if (!options_.mixture.empty()) check_mixture();
  quotas_ = shares_of(options_.mixture, options_.mixture.empty() ? 0 : examples_);
  for (size_t i = 0; i < quotas_.size(); ++i)
    if (quotas_[i] == 0)
      fail(ErrorCode::BadInput,
           "making batches: the share of {} in an epoch of {} examples is less than one; "
           "raise its weight ({}) or leave it out",
           name_of(options_.mixture[i], i), examples_, options_.mixture[i].weight);
  enter();
}

void Sampler::check_mixture() const {
  for (size_t i = 0; i < options_.mixture.size(); ++i) {
    const MixtureSource& source = options_.mixture[i];
    if (source.examples.empty())
      fail(ErrorCode::BadInput, "making batches: {} has no examples; leave it out of the mixture",
           name_of(source, i));
    if (!(source.weight > 0) || !std::isfinite(source.weight))
      fail(ErrorCode::BadInput, "making batches: the weight of {} is {}, expected a number above 0",
           name_of(source, i), source.weight);
  }
}

void Sampler::draw_source(size_t source, int64_t epoch, std::vector<int64_t>& draws) const {
  const std::vector<int64_t>& examples = options_.mixture[source].examples;
  const int64_t count = static_cast<int64_t>(examples.size()), quota = quotas_[source];
  std::vector<int64_t> order;
  int64_t pass = -1;
  for (int64_t at = epoch * quota; at < (epoch + 1) * quota; ++at) {
    if (at / count != pass) {
      pass = at / count;
      order = Stream64(seed_, "source")
                  .with(source)
                  .with(static_cast<uint64_t>(pass))
                  .permutation(count);
    }
    draws.push_back(examples[static_cast<size_t>(order[static_cast<size_t>(at % count)])]);
  }
}

std::vector<int64_t> Sampler::order_of(int64_t epoch) const {
  std::vector<int64_t> order =
      Stream64(seed_, "order").with(static_cast<uint64_t>(epoch)).permutation(examples_);
  if (quotas_.empty()) return order;
  std::vector<int64_t> draws;
  for (size_t source = 0; source < quotas_.size(); ++source) draw_source(source, epoch, draws);
  for (int64_t& place : order) place = draws[static_cast<size_t>(place)];
  return order;
}

void Sampler::enter() {
  if (order_epoch_ != position_.epoch) {
    order_ = order_of(position_.epoch);
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

void Sampler::visit_given(const std::function<void(int64_t)>& visit) const {
  // Without a mixture one epoch has them all.
  const int64_t epochs = quotas_.empty() ? std::min<int64_t>(position_.epoch, 1) : position_.epoch;
  for (int64_t epoch = 0; epoch < epochs; ++epoch)
    for (const int64_t example : order_of(epoch)) visit(example);
  for (int64_t i = 0; i < position_.window * options_.window; ++i)
    visit(order_[static_cast<size_t>(i)]);
  for (int64_t i = 0; i < position_.batch; ++i)
    for (const int64_t example : batches_[static_cast<size_t>(i)]) visit(example);
}

}  // namespace attune
