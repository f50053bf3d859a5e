#include "nn/stack.h"

#include <algorithm>

#include "base/text.h"
#include "kernels/ops/rowwise.h"
#include "nn/positions.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Stack::Stack(const StackSpec& spec, int shared, const std::string& result, const SiteMaker& sites)
    : spec_(spec), embedding_(spec, shared, sites) {
  const StackSpec& s = spec_;
  if (s.buckets.buckets > 0) {
    bias_ = sites.weight(s.name + ".0.self.bias", WeightKind::Table, s.buckets.buckets, s.heads,
                         false, 0);
    buckets_ = bucket_index(s.buckets);
  }
  for (int layer = 0; layer < s.layers; ++layer) blocks_.emplace_back(s, layer, sites);
  if (s.final_norm)
    final_norm_ =
        sites.weight(s.name + ".final.norm", WeightKind::Norm, s.hidden, s.hidden, s.norm_bias);
  result_ = sites.flow(result, SiteKind::Rows, s.hidden);
}

/// [heads, 2 reach + 1]: the table by distance.
Tensor Stack::biases(Forward& pass) const {
  if (bias_ < 0) return Tensor();
  return embedding({pass.table(bias_)}, {buckets_}, pass.master()).t().contiguous();
}

/// Positions of new rows go on from the cached ones.
void Stack::place(Forward& pass, const Stream& stream) const {
  const Cache* cache = pass.batch().cache;
  if (cache == nullptr || !cache->started || stream.positions.defined()) return;
  std::vector<int32_t> positions;
  for (int64_t b = 0; b < stream.rows.sequences(); ++b)
    for (int64_t i = 0; i < stream.rows.length(b); ++i)
      positions.push_back(static_cast<int32_t>(cache->next[static_cast<size_t>(b)] + i));
  pass.set_positions(int32_tensor(positions));
}

void Stack::remember(Forward& pass, Cache& cache, const Stream& stream) const {
  const RowIndex& rows = pass.rows();
  const Tensor positions = stream.positions.defined() ? stream.positions : pass.positions();
  cache.next.resize(static_cast<size_t>(rows.sequences()), 0);
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    if (rows.length(b) == 0) continue;
    const int64_t last = pointer<const int32_t>(positions)[rows.end(b) - 1];
    cache.next[static_cast<size_t>(b)] = last + 1;
  }
}

Tensor Stack::run(const Block& block, const std::shared_ptr<Forward>& pass, StackPass& shared,
                  const Tensor& x) const {
  const int recompute = pass->recompute();
  const bool again = (recompute < 0 || block.layer() < recompute) && at::GradMode::is_enabled() &&
                     pass->repeatable(format("{}.{}.", spec_.name, block.layer()));
  if (!again) return block.forward(*pass, shared, x);
  // Tables that all blocks share are made once.
  if (spec_.rotary.dims > 0) shared.rotary();
  if (shared.bias.defined()) shared.gaps();
  return recomputed({x, shared.memory, shared.bias},
                    [&block, pass, shared, first = true, moment = pass->moment(),
                     name = spec_.name](const Tensors& inputs) mutable {
                      if (!first) pass->go_back(moment, name);
                      first = false;
                      StackPass own = shared;
                      own.memory = inputs[1];
                      own.bias = inputs[2];
                      return block.forward(*pass, own, inputs[0]);
                    });
}

Tensor Stack::blocks(const std::shared_ptr<Forward>& shared_pass, const Stream& stream,
                     const Tensor& memory, const std::string& memory_stream,
                     std::function<Tensor(const Forward&)> read) const {
  Forward& pass = *shared_pass;
  pass.enter(spec_.name, embedding_.rows(stream));
  place(pass, stream);
  Cache* cache = spec_.causal ? pass.batch().cache : nullptr;
  if (cache != nullptr) {
    cache->self.resize(blocks_.size());
    cache->cross.resize(blocks_.size());
    // Before any row is added: each site that adds rows moves the positions behind it, every pass.
    remember(pass, *cache, stream);
  }
  Tensor x = embedding_.forward(pass, stream);
  StackPass shared(pass, spec_);
  shared.bias = biases(pass);
  shared.memory = memory;
  shared.memory_stream = memory_stream;
  if (pass.by_row(final_norm_) && pass.by_row(result_)) shared.read = std::move(read);
  for (const Block& block : blocks_) x = run(block, shared_pass, shared, x);
  if (cache != nullptr) cache->started = true;
  return x;
}

Tensor Stack::result(Forward& pass, const Tensor& x_in) const {
  Tensor x = x_in;
  if (final_norm_ >= 0) x = pass.norm(final_norm_, spec_.norm, spec_.norm_eps, x).y;
  return pass.at(result_, dropout(x, pass.drop(result_, spec_.final_dropout)));
}

}  // namespace attune
