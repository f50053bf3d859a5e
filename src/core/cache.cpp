#include "core/cache.h"

#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

using at::Tensor;

void push_range(std::vector<int64_t>& to, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) to.push_back(i);
}

}  // namespace

void Cache::Layer::append(const Tensor& new_k, const Tensor& new_v, const RowIndex& added) {
  if (!k.defined()) {
    k = new_k;
    v = new_v;
    rows = added;
    return;
  }
  std::vector<int64_t> order, lengths;
  const int64_t before = rows.rows();
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    push_range(order, rows.begin(b), rows.end(b));
    push_range(order, before + added.begin(b), before + added.end(b));
    lengths.push_back(rows.length(b) + added.length(b));
  }
  const Tensor index = int64_tensor(order);
  k = at::cat({k, new_k}).index_select(0, index);
  v = at::cat({v, new_v}).index_select(0, index);
  rows = RowIndex::from_lengths(lengths);
}

void Cache::Layer::keep(const std::vector<int64_t>& sequences) {
  if (!k.defined()) return;
  std::vector<int64_t> order, lengths;
  for (const int64_t b : sequences) {
    push_range(order, rows.begin(b), rows.end(b));
    lengths.push_back(rows.length(b));
  }
  const Tensor index = int64_tensor(order);
  k = k.index_select(0, index);
  v = v.index_select(0, index);
  rows = RowIndex::from_lengths(lengths);
}

void Cache::keep(const std::vector<int64_t>& sequences) {
  for (Layer& layer : self) layer.keep(sequences);
  for (Layer& layer : cross) layer.keep(sequences);
  std::vector<int64_t> kept;
  for (const int64_t b : sequences) kept.push_back(next[static_cast<size_t>(b)]);
  next = std::move(kept);
}

}  // namespace attune
