#include "step_batches.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "nn/transformer.h"
#include "tensor/rows.h"
#include "tensor/types.h"

namespace attune {

std::vector<std::vector<int64_t>> lognormal_lengths(int64_t batches, int64_t sequences) {
  const double sigma = 0.6, mu = std::log(25.0) - sigma * sigma / 2;
  const Stream64 random(1, "bench lengths");
  std::vector<std::vector<int64_t>> all(static_cast<size_t>(batches));
  uint64_t drawn = 0;
  for (std::vector<int64_t>& lengths : all)
    for (int64_t i = 0; i < sequences; ++i)
      lengths.push_back(
          std::clamp<int64_t>(std::llround(std::exp(mu + sigma * random.normal(drawn++))), 2, 128));
  return all;
}

Batch step_batch(const ModelSpec& spec, const std::vector<int64_t>& lengths, uint64_t number,
                 int64_t answer) {
  Batch batch = made_up_batch(spec, lengths, number);
  batch.pass.training = true;
  const Tensor ids = batch.streams.begin()->second.ids;
  int32_t* word = pointer<int32_t>(ids);
  const Stream64 random(number, "bench words");
  const double ranks = std::log(static_cast<double>(spec.stacks[0].vocabulary));
  for (int64_t i = 0; i < ids.numel(); ++i)
    word[i] = static_cast<int32_t>(std::exp(ranks * random.uniform(static_cast<uint64_t>(i))));
  std::vector<int64_t> labels;
  for (size_t text = 0; text < lengths.size(); ++text) {
    const int64_t length = lengths[text];
    if (answer == 0) labels.push_back(static_cast<int64_t>(text % 2));
    for (int64_t i = 0; answer > 0 && i < length; ++i) {
      const bool labelled = i + 1 < length && (length - i) * 100 <= length * answer;
      labels.push_back(labelled ? word[labels.size() + 1] : kUnlabelled);
    }
  }
  batch.fields["labels"] = int64_tensor(labels);
  return batch;
}

}  // namespace attune
