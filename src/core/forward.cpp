#include "core/forward.h"

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Forward::Forward(Model& model, Batch batch, const Want& want) : model_(model), batch_(std::move(batch)) {
  if (batch_.sets.defined())
    fail(ErrorCode::Unsupported, "adapter sets per sequence in one batch are not built yet; run one set at a time");
  if (model.plan().prepare) model.plan().prepare(batch_.pass);
  if (want.sites.empty()) return;
  wanted_.assign(model.sites().size(), false);
  for (const std::string& glob : want.sites)
    for (const Site& site : select_sites(model.sites(), glob)) {
      if (site.kind == SiteKind::Rows || site.kind == SiteKind::Heads) {
        wanted_[static_cast<size_t>(site.id)] = true;
      } else if (site.name == glob) {
        fail(ErrorCode::Unsupported, "capturing {}: a site of kind {} has no value that is kept; rows and heads sites do",
             site.name, kind_name(site.kind));
      }
    }
}

namespace {

/// One key a row from (seed, step, example id, position in the example): dropout never depends on the packing.
Tensor keys_of_rows(const Batch& batch, const RowIndex& rows) {
  const std::map<std::string, Tensor>::const_iterator field = batch.fields.find("example");
  const int64_t* examples = field != batch.fields.end() ? pointer<const int64_t>(field->second) : nullptr;
  const uint64_t base = mix(mix(batch.pass.seed, name_key("dropout")), static_cast<uint64_t>(batch.pass.step));
  Tensor keys = at::empty({rows.rows()}, at::kLong);
  uint64_t* out = pointer<uint64_t>(keys);
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    const uint64_t example = mix(base, static_cast<uint64_t>(examples != nullptr ? examples[b] : b));
    for (int64_t r = rows.begin(b); r < rows.end(b); ++r) out[r] = mix(example, static_cast<uint64_t>(r - rows.begin(b)));
  }
  return keys;
}

uint32_t dropout_key(const std::string& name) { return static_cast<uint32_t>(name_key(name)); }

/// y * by or y + by in the master type, so that small trained steps survive bf16.
Tensor in_master(const Tensor& y, const Tensor& by, bool multiply) {
  const Tensor wide = cast(y, by.scalar_type());
  Tensor shaped = by;
  if (y.dim() == 3) {
    shaped = by.numel() == y.numel() ? by.reshape(y.sizes()) : by.reshape({1, y.size(1), y.size(2)});
  } else if (by.dim() == 2 && by.size(0) != y.size(0)) {
    shaped = by.reshape({1, -1});
  }
  return cast(multiply ? wide * shaped : wide + shaped, y.scalar_type());
}

}  // namespace

void Forward::enter(const RowIndex& rows) {
  rows_ = rows;
  row_keys_ = batch_.pass.training ? keys_of_rows(batch_, rows) : Tensor();
}

Tensor Forward::run_edits(const Site& site, const SitePlan& plan, Tensor x) {
  for (const SitePlan::Entry& entry : plan.edits) {
    if (const Scale* scale = std::get_if<Scale>(entry.edit)) {
      x = in_master(x, scale->out, true);
    } else if (const Shift* shift = std::get_if<Shift>(entry.edit)) {
      x = in_master(x, shift->by, false);
    } else if (const Apply* apply = std::get_if<Apply>(entry.edit)) {
      const Tensor y = apply->fn(View{x, rows_, reads_});
      if (!y.defined() || y.sizes() != x.sizes())
        fail(ErrorCode::Internal, "{}: the function at site {} must return rows of the shape it was given", entry.owner,
             site.name);
      x = cast(y, x.scalar_type());
    } else {
      std::get<Observe>(*entry.edit).see(View{x, rows_, reads_});
    }
  }
  return x;
}

Tensor Forward::at(int id, const Tensor& x) {
  const SitePlan* plan = model_.plan().at(id);
  if (plan == nullptr && !wanted(id)) return x;
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  const Tensor y = plan != nullptr ? run_edits(site, *plan, x) : x;
  if (plan != nullptr && plan->read) reads_[site.name] = y;
  if (wanted(id)) captured_[site.name] = y;
  return y;
}

namespace {

LowRankTerm term_of(const SitePlan::Entry& entry) {
  const LowRank& low = std::get<LowRank>(*entry.edit);
  return {low.down, low.up, low.scale, low.dropout, entry.dropout_site};
}

}  // namespace

Tensor Forward::project(int id, const Tensor& x) {
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  WeightSlot& slot = model_.slot(site);
  SitePlan* plan = model_.plan().mutable_at(id);
  if (plan == nullptr) return linear(x, slot.weight, slot.bias, &slot.copies, {}, {});
  const Tensor weight = plan->weight.defined() ? plan->weight : slot.weight;
  const Tensor bias = plan->bias.defined() ? plan->bias : slot.bias;
  WeightCopies& copies = plan->weight.defined() ? plan->copies : slot.copies;
  if (!plan->only_low_rank()) return project_edited(site, *plan, x);
  std::vector<LowRankTerm> terms;
  for (const SitePlan::Entry& entry : plan->edits) terms.push_back(term_of(entry));
  return linear(x, weight, bias, &copies, terms, row_keys_);
}

/// Edits up to the last Reweight fold into the weight; the others run as side-cars, input scales pushed to the right.
Tensor Forward::project_edited(const Site& site, SitePlan& plan, Tensor x) {
  WeightSlot& slot = model_.slot(site);
  Affine map{plan.weight.defined() ? plan.weight : slot.weight, plan.bias.defined() ? plan.bias : slot.bias};
  WeightCopies* copies = plan.weight.defined() ? &plan.copies : &slot.copies;
  size_t first = plan.edits.size();
  while (first > 0 && !std::holds_alternative<Reweight>(*plan.edits[first - 1].edit)) --first;
  for (size_t i = 0; i < first; ++i) map = fold(map, *plan.edits[i].edit);
  if (first > 0) copies = nullptr;
  std::vector<Tensor> inputs(plan.edits.size());
  for (size_t i = plan.edits.size(); i-- > first;) {
    inputs[i] = x;
    const Scale* scale = std::get_if<Scale>(plan.edits[i].edit);
    if (scale != nullptr && scale->in.defined()) x = in_master(x, scale->in.reshape({-1}), true);
  }
  Tensor y = linear(x, map.weight, map.bias, copies, {}, {});
  for (size_t i = first; i < plan.edits.size(); ++i) {
    const Edit& edit = *plan.edits[i].edit;
    if (std::holds_alternative<LowRank>(edit)) {
      const LowRankTerm term = term_of(plan.edits[i]);
      const DropSite drop{term.dropout, row_keys_, term.dropout_site};
      y = y + low_rank(inputs[i], term, drop.row_keys);
    } else if (const Scale* scale = std::get_if<Scale>(&edit)) {
      if (scale->out.defined()) y = in_master(y, scale->out.reshape({-1}), true);
    } else {
      y = in_master(y, std::get<Shift>(edit).by.reshape({-1}), false);
    }
  }
  return y;
}

NormArgs Forward::norm(int id, kernels::NormKind kind, double eps) const {
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  const WeightSlot& slot = model_.slot(site);
  const SitePlan* plan = model_.plan().at(id);
  Affine map{slot.weight, slot.bias};
  if (plan != nullptr) {
    if (plan->weight.defined()) map.weight = plan->weight;
    if (plan->bias.defined()) map.bias = plan->bias;
    for (const SitePlan::Entry& entry : plan->edits) map = fold(map, *entry.edit);
  }
  return {kind, map.weight, map.bias, eps};
}

Tensor Forward::table(int id) const {
  const SitePlan* plan = model_.plan().at(id);
  if (plan != nullptr && plan->weight.defined()) return plan->weight;
  return model_.slot(model_.sites()[static_cast<size_t>(id)]).weight;
}

DropSite Forward::drop(int id, double p) const {
  if (!batch_.pass.training || p <= 0) return {};
  return {p, row_keys_, dropout_key(model_.sites()[static_cast<size_t>(id)].name)};
}

}  // namespace attune
