// Weight sites: projections, norms, tables, with every edit.
#include <algorithm>

#include "base/error.h"
#include "core/forward.h"
#include "kernels/ops/rowwise.h"
#include "tensor/late_rows.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

LowRankTerm term_of(const SitePlan::Entry& entry, size_t output = 0) {
  const LowRank& low = std::get<LowRank>(*entry.edit);
  return {low.down, low.up, low.scale, low.dropout, entry.dropout_site, output};
}

/// y * by or y + by along the rows, in the master type, so that small trained steps survive bf16.
Tensor by_columns(const Tensor& y, const Tensor& by, bool multiply) {
  const Tensor wide = cast(y, by.scalar_type()), row = by.reshape({1, -1});
  return cast(multiply ? wide * row : wide + row, y.scalar_type());
}

const Tensor& bias_of(const WeightSlot& slot, const SitePlan* plan) {
  return plan != nullptr && plan->bias.defined() ? plan->bias : slot.bias;
}

/// The tensors that edits change.
Affine base_map(WeightSlot& slot, const SitePlan* plan) {
  const bool trained = plan != nullptr && plan->weight.defined();
  if (trained) bring_rows(plan->weight);
  return {trained ? plan->weight : slot.widened(), bias_of(slot, plan)};
}

/// The same with the first `count` edits folded in, or all.
Affine folded_map(const Site& site, WeightSlot& slot, const SitePlan* plan,
                  size_t count = SIZE_MAX) {
  Affine map = base_map(slot, plan);
  for (size_t i = 0; plan != nullptr && i < std::min(count, plan->edits.size()); ++i)
    map = fold(map, *plan->edits[i].edit, site.weight);
  return map;
}

/// The tensors that are used as they are: the weight may be in half precision.
Affine plain_map(const WeightSlot& slot, const SitePlan* plan) {
  if (plan != nullptr && plan->weight.defined()) return {plan->weight, bias_of(slot, plan)};
  return {slot.codes != nullptr ? slot.dense() : slot.weight, bias_of(slot, plan)};
}

/// The unedited weight of a projection, or the one that is trained in its place.
WeightSource source_of(WeightSlot& slot, SitePlan* plan) {
  if (plan != nullptr && plan->weight.defined()) {
    bring_rows(plan->weight);
    return {plan->weight, &plan->copies, nullptr};
  }
  return {slot.weight, &slot.copies, slot.codes};
}
/// Projections of one input whose edits are none or LowRanks, with their terms.
struct Together {
  std::vector<Projection> projections;
  std::vector<LowRankTerm> terms;

  void add(WeightSlot& slot, SitePlan* plan) {
    for (size_t i = 0; plan != nullptr && i < plan->edits.size(); ++i)
      terms.push_back(term_of(plan->edits[i], projections.size()));
    projections.push_back({source_of(slot, plan), bias_of(slot, plan)});
  }
};

/// The number of edits up to the last one that `asks` for a folded weight.
template <class Asks>
size_t folded_edits(const SitePlan& plan, const Asks& asks) {
  size_t first = plan.edits.size();
  while (first > 0 && !asks(*plan.edits[first - 1].edit)) --first;
  return first;
}

}  // namespace

bool Forward::lanes_differ(int site) const {
  if (lanes_.size() == 1) return false;
  for (const Lane& lane : lanes_)
    if (lane.plan->at(site) != nullptr) return true;
  return false;
}

Tensor Forward::project(int id_in, const Tensor& x) {
  const int id = resolve(id_in);
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  if (!lanes_differ(id)) return project_lane(site, 0, x);
  bool beside = true;
  for (const Lane& lane : lanes_) {
    const SitePlan* plan = lane.plan->at(id);
    beside = beside && (plan == nullptr || plan->beside_the_base());
  }
  std::vector<Tensor> parts;
  if (!beside) {
    for (size_t lane = 0; lane < parts_.size(); ++lane)
      parts.push_back(project_lane(site, lane, lane_rows(x, parts_[lane])));
    return join_lanes(parts);
  }
  // One product over all rows; each set's edits on its own rows.
  WeightSlot& slot = model_.slot(site);
  const Tensor y = linear(x, source_of(slot, nullptr), slot.bias, {}, {});
  for (size_t lane = 0; lane < parts_.size(); ++lane) {
    const SitePlan* plan = parts_[lane].plan->at(id);
    const Tensor own = lane_rows(y, parts_[lane]);
    const std::vector<Tensor> inputs(plan != nullptr ? plan->edits.size() : 0,
                                     lane_rows(x, parts_[lane]));
    parts.push_back(plan != nullptr ? side_edits(*plan, 0, inputs, lane, own) : own);
  }
  return join_lanes(parts);
}

std::vector<Tensor> Forward::project(const std::vector<int>& sites, const Tensor& x) {
  bool together = true;
  for (const int site : sites) {
    const int id = resolve(site);
    const SitePlan* plan = lanes_[0].plan->at(id);
    together = together && !lanes_differ(id) && (plan == nullptr || plan->only_low_rank());
  }
  std::vector<Tensor> results;
  if (!together) {
    for (const int site : sites) results.push_back(project(site, x));
    return results;
  }
  Together all;
  for (const int site : sites) {
    const int id = resolve(site);
    all.add(model_.slot(model_.sites()[static_cast<size_t>(id)]),
            const_cast<Plan*>(lanes_[0].plan)->mutable_at(id));
  }
  return linear(x, all.projections, all.terms, parts_[0].keys);
}

std::optional<PlainProjection> Forward::plain_projection(int id_in) {
  const int id = resolve(id_in);
  if (lanes_differ(id)) return std::nullopt;
  SitePlan* plan = const_cast<Plan*>(lanes_[0].plan)->mutable_at(id);
  if (plan != nullptr && !plan->edits.empty()) return std::nullopt;
  WeightSlot& slot = model_.slot(model_.sites()[static_cast<size_t>(id)]);
  const Affine map = plain_map(slot, plan);
  const bool own = plan != nullptr && plan->weight.defined();
  if (own) bring_rows(plan->weight);
  return PlainProjection{map.weight, map.bias, own ? &plan->copies : &slot.copies};
}

std::optional<Affine> Forward::folded_projection(int id_in) {
  const int id = resolve(id_in);
  if (lanes_differ(id) || !by_row(id)) return std::nullopt;
  const SitePlan* plan = lanes_[0].plan->at(id);
  for (size_t i = 0; plan != nullptr && i < plan->edits.size(); ++i) {
    const LowRank* low = std::get_if<LowRank>(plan->edits[i].edit);
    if (low != nullptr && low->dropout > 0 && batch_.pass.training) return std::nullopt;
  }
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  return folded_map(site, model_.slot(site), plan);
}

Tensor Forward::project_lane(const Site& site, size_t lane, const Tensor& x) {
  WeightSlot& slot = model_.slot(site);
  SitePlan* plan = const_cast<Plan*>(lanes_[lane].plan)->mutable_at(site.id);
  if (plan != nullptr && !plan->only_low_rank()) return project_edited(site, *plan, lane, x);
  Together one;
  one.add(slot, plan);
  return linear(x, one.projections, one.terms, parts_[lane].keys)[0];
}

/// Edits up to the last Reweight fold into the weight; the others run as side-cars, input scales
/// pushed to the right.
Tensor Forward::project_edited(const Site& site, SitePlan& plan, size_t lane, Tensor x) {
  WeightSlot& slot = model_.slot(site);
  WeightSource weight = source_of(slot, &plan);
  Tensor bias = bias_of(slot, &plan);
  const size_t first =
      folded_edits(plan, [](const Edit& edit) { return std::holds_alternative<Reweight>(edit); });
  if (first > 0) {
    const Affine map = folded_map(site, slot, &plan, first);
    weight = {map.weight};
    bias = map.bias;
  }
  std::vector<Tensor> inputs(plan.edits.size());
  for (size_t i = plan.edits.size(); i-- > first;) {
    inputs[i] = x;
    const Scale* scale = std::get_if<Scale>(plan.edits[i].edit);
    if (scale != nullptr && scale->in.defined()) x = by_columns(x, scale->in, true);
  }
  return side_edits(plan, first, inputs, lane, linear(x, weight, bias, {}, {}));
}

/// Edits from `first` on, run on the result y; inputs[i] is what edit i's LowRank multiplies.
Tensor Forward::side_edits(const SitePlan& plan, size_t first, const std::vector<Tensor>& inputs,
                           size_t lane, Tensor y) {
  const Tensor& keys = parts_[lane].keys;
  for (size_t i = first; i < plan.edits.size(); ++i) {
    const Edit& edit = *plan.edits[i].edit;
    if (std::holds_alternative<LowRank>(edit)) {
      const LowRankTerm term = term_of(plan.edits[i]);
      const Tensor update = low_rank(inputs[i], term, keys);
      const Fn& gate = std::get<LowRank>(edit).gate;
      if (!gate) {
        y = y + update;
        continue;
      }
      const Tensor by = gate(view_of(inputs[i], parts_[lane].rows, keys, plan.edits[i], lane));
      y = y + cast(cast(update, by.scalar_type()) * by.reshape({-1, 1}), y.scalar_type());
    } else if (const Scale* scale = std::get_if<Scale>(&edit)) {
      if (scale->out.defined()) y = by_columns(y, scale->out, true);
    } else {
      y = by_columns(y, std::get<Shift>(edit).by, false);
    }
  }
  return y;
}

NormResult Forward::norm(int id_in, kernels::NormKind kind, double eps, const Tensor& x,
                         const Tensor& residual, const DropSite& drop, bool keep_sum) {
  const int id = resolve(id_in);
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  const auto args = [&](const Plan& whole) {
    const Affine map = folded_map(site, model_.slot(site), whole.at(id));
    return NormArgs{kind, map.weight, map.bias, eps};
  };
  if (!lanes_differ(id)) return add_norm(x, residual, drop, args(*lanes_[0].plan), keep_sum);
  std::vector<Tensor> normed, sums;
  for (const LaneRows& part : parts_) {
    DropSite own = drop;
    if (own.row_keys.defined()) own.row_keys = part.keys;
    const NormResult result =
        add_norm(lane_rows(x, part), residual.defined() ? lane_rows(residual, part) : residual, own,
                 args(*part.plan), keep_sum);
    normed.push_back(result.y);
    sums.push_back(result.sum);
  }
  return {join_lanes(normed), keep_sum ? join_lanes(sums) : Tensor()};
}

Tensor Forward::table(int id_in) {
  const int id = resolve(id_in);
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  if (lanes_differ(id))
    fail(ErrorCode::Unsupported,
         "{}: the adapter sets of one batch change this tensor differently; run them one set a "
         "batch",
         site.name);
  const SitePlan* plan = lanes_[0].plan->at(id);
  if (plan == nullptr || plan->edits.empty()) return plain_map(model_.slot(site), plan).weight;
  const Affine map = folded_map(site, model_.slot(site), plan);
  if (!map.bias.defined()) return map.weight;
  return map.weight + (map.weight.dim() == 2 ? map.bias.reshape({1, -1}) : map.bias);
}

bool Forward::table_edited(int site) const {
  const int id = resolve(site);
  if (lanes_differ(id)) return true;
  const SitePlan* plan = lanes_[0].plan->at(id);
  return plan != nullptr && !plan->edits.empty();
}

Tensor Forward::gather(int id_in, const Tensor& index, int64_t padding) {
  const int id = resolve(id_in);
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  if (!lanes_differ(id)) return gather_lane(site, *lanes_[0].plan, index, padding);
  std::vector<Tensor> parts;
  for (const LaneRows& part : parts_)
    parts.push_back(gather_lane(site, *part.plan, lane_rows(index, part).contiguous(), padding));
  return join_lanes(parts);
}

/// Edits up to the last that changes the table itself fold into it; the others act on its rows.
Tensor Forward::gather_lane(const Site& site, const Plan& whole, const Tensor& index,
                            int64_t padding) {
  const SitePlan* plan = whole.at(site.id);
  const size_t first = plan == nullptr ? 0 : folded_edits(*plan, [](const Edit& edit) {
    const Scale* scale = std::get_if<Scale>(&edit);
    return std::holds_alternative<Reweight>(edit) || (scale != nullptr && scale->in.defined());
  });
  const Affine map = first > 0 ? folded_map(site, model_.slot(site), plan, first)
                               : plain_map(model_.slot(site), plan);
  Tensor y = embedding({map.weight}, {index}, master(), padding);
  if (map.bias.defined()) y = y + map.bias.reshape({1, -1});
  for (size_t i = first; plan != nullptr && i < plan->edits.size(); ++i) {
    const Edit& edit = *plan->edits[i].edit;
    if (const LowRank* low = std::get_if<LowRank>(&edit)) {
      const Tensor inner = embedding({low->down.t().contiguous()}, {index}, master(), -1);
      y = y + attune::matmul(inner, low->up, false, true) * low->scale;
    } else if (const Scale* scale = std::get_if<Scale>(&edit)) {
      y = by_columns(y, scale->out, true);
    } else {
      y = by_columns(y, std::get<Shift>(edit).by, false);
    }
  }
  return y;
}

}  // namespace attune
