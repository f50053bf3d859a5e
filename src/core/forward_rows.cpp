// What changes which rows there are: Extend, Keep, Route, and leaving out what nobody reads.
#include <algorithm>

#include "base/error.h"
#include "core/cache.h"
#include "core/forward.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// What Extend adds, by sequence when each has its own: [P, d] or [sequences * P, d].
struct Added {
  Tensor rows;
  int64_t count = 0;
  bool by_sequence = false;
};

Added added_rows(const Tensor& given, const Tensor& gate, const Tensor& like) {
  Added added;
  Tensor rows = cast(given, like.scalar_type());
  added.count = rows.size(-2);
  if (gate.defined()) {
    const Tensor by = cast(gate, like.scalar_type()).reshape({-1, 1, 1});
    rows = (rows.dim() == 2 ? rows.unsqueeze(0) : rows) * by;
  }
  added.by_sequence = rows.dim() == 3;
  added.rows = rows.reshape({-1, rows.size(-1)});
  return added;
}

}  // namespace

Tensor Forward::extend_rows(const Extend& extend, const SitePlan::Entry& entry, size_t lane,
                            const Tensor& x) {
  if (!extend.rows.defined() || extend.rows.size(-2) == 0) return x;
  // Sequences being decoded have had their rows in the first pass; what follows stands behind them.
  if (batch_.cache != nullptr && batch_.cache->started) {
    if (extend.shift) state_->move(extend.rows.size(-2), lanes_[lane].sequences);
    return x;
  }
  const Tensor gate = extend.gate
                          ? extend.gate(view_of(lane_rows(x, parts_[lane]), parts_[lane].rows,
                                                parts_[lane].keys, entry, lane))
                          : Tensor();
  const Added added = added_rows(extend.rows, gate, x);
  const Extended next =
      extend_index(state_->rows, added.count, added.by_sequence, lanes_[lane].sequences);
  for (std::pair<const std::string, Tensor>& read : reads_) {
    if (read.second.size(0) != state_->rows.rows()) continue;
    std::vector<int64_t> shape = read.second.sizes().vec();
    shape[0] = added.rows.size(0);
    read.second =
        at::cat({read.second, at::zeros(shape, read.second.options())}).index_select(0, next.order);
  }
  state_->extend(batch_, next, added.count, extend.shift);
  state_->pooled = state_->pooled || extend.pooled;
  split_rows();
  return at::cat({x, added.rows}).index_select(0, next.order);
}

Tensor Forward::drop_rows(const Keep& keep, const SitePlan::Entry& entry, size_t lane,
                          const Tensor& x) {
  const LaneRows& part = parts_[lane];
  const Tensor mask =
      keep.mask(view_of(lane_rows(x, part), part.rows, part.keys, entry, lane)).to(at::kBool);
  Tensor all = at::ones({x.size(0)}, at::kBool);
  if (part.index.defined()) {
    all.index_copy_(0, part.index, mask);
  } else {
    all = mask;
  }
  const Tensor kept = all.nonzero().reshape({-1});
  if (kept.numel() == x.size(0)) return x;
  for (std::pair<const std::string, Tensor>& read : reads_)
    if (read.second.size(0) == state_->rows.rows()) read.second = read.second.index_select(0, kept);
  state_->keep(x, all, kept, entry.owner);
  split_rows();
  return x.index_select(0, kept);
}

bool Forward::by_row(int site_in) const {
  if (site_in < 0) return true;
  if (wanted(site_in)) return false;
  const Site& site = model_.sites()[static_cast<size_t>(site_in)];
  for (const Lane& lane : lanes_) {
    const SitePlan* plan = lane.plan->at(site_in);
    if (plan == nullptr) continue;
    if (plan->read_whole || !plan->experts.empty()) return false;
    for (const SitePlan::Entry& entry : plan->edits)
      if (!attune::by_row(site, *entry.edit)) return false;
  }
  return true;
}

void Forward::narrow(const Tensor& rows) {
  for (std::pair<const std::string, Tensor>& read : reads_)
    if (read.second.size(0) == state_->rows.rows()) read.second = read.second.index_select(0, rows);
  state_->choose(rows);
  state_->narrowed = true;
  split_rows();
}

namespace {

/// Weights of the top_k experts of each row; the others are zero.
Tensor top_weights(const Tensor& weights, int top_k) {
  if (top_k >= weights.size(1)) return weights;
  const Tensor best = std::get<1>(weights.detach().topk(top_k, 1));
  return weights * at::zeros_like(weights.detach()).scatter_(1, best, 1);
}

}  // namespace

Tensor Forward::mixture(const Site& part_site, const SitePlan& plan, const Tensor& x,
                        const std::function<Tensor(const Tensor&)>& run) {
  const SitePlan::Entry& entry = plan.edits.back();
  const Route& route = std::get<Route>(*entry.edit);
  const Tensor weights =
      top_weights(route.gate(view_of(x, rows(), state_->keys, entry, 0)), route.top_k);
  const bool by_row = part_site.name.ends_with(".ffn");  // attention needs all rows of a sequence
  RowState* const outer = state_;
  const std::map<std::string, Tensor> outer_reads = reads_;
  Tensor sum;
  for (int expert = 0; expert < route.experts; ++expert) {
    const Tensor column = weights.select(1, expert);
    const Tensor chosen = by_row ? column.detach().ne(0).nonzero().reshape({-1}) : Tensor();
    if (by_row && chosen.numel() == 0) continue;
    RowState inner = *outer;
    if (by_row) {
      inner.choose(chosen);
      for (std::pair<const std::string, Tensor>& read : reads_)
        if (read.second.size(0) == x.size(0)) read.second = read.second.index_select(0, chosen);
    }
    state_ = &inner;
    experts_ = plan.experts[static_cast<size_t>(expert)];
    split_rows();
    const Tensor y = run(by_row ? x.index_select(0, chosen) : x);
    const Tensor weight = by_row ? column.index_select(0, chosen) : column;
    const Tensor weighted = cast(y, master()) * weight.unsqueeze(1);
    if (!sum.defined()) sum = at::zeros({x.size(0), y.size(1)}, weighted.options());
    sum = by_row ? sum.index_add(0, chosen, weighted) : sum + weighted;
    experts_.clear();
    reads_ = outer_reads;
    state_ = outer;
  }
  split_rows();
  return cast(sum, x.scalar_type());
}

}  // namespace attune
