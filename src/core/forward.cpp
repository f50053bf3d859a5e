#include "core/forward.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Forward::Forward(Model& model, Batch batch, const Want& want)
    : model_(model), batch_(std::move(batch)) {
  choose_lanes();
  if (want.sites.empty()) return;
  wanted_.assign(model.sites().size(), false);
  for (const std::string& glob : want.sites)
    for (const Site& site : select_sites(model.sites(), glob)) {
      if (site.kind == SiteKind::Rows || site.kind == SiteKind::Heads) {
        wanted_[static_cast<size_t>(site.id)] = true;
      } else if (site.name == glob) {
        fail(ErrorCode::Unsupported,
             "capturing {}: a site of kind {} has no value that is kept; rows and heads sites do",
             site.name, kind_name(site.kind));
      }
    }
}

void Forward::choose_lanes() {
  Plan& plan = model_.plan();
  if (!batch_.sets.defined()) {
    if (plan.prepare) plan.prepare(batch_.pass);
    lanes_.push_back({&plan, {}});
    return;
  }
  static const Plan kNothing;
  const int32_t* sets = pointer<const int32_t>(batch_.sets);
  std::map<int32_t, std::vector<int64_t>> sequences;
  for (int64_t b = 0; b < batch_.sets.numel(); ++b) sequences[sets[b]].push_back(b);
  for (const std::pair<const int32_t, std::vector<int64_t>>& entry : sequences) {
    const Plan* own = &kNothing;
    if (entry.first >= 0) {
      if (!plan.of_set)
        fail(ErrorCode::BadInput,
             "a batch names adapter set {}, but no adapter is loaded on this model", entry.first);
      own = &plan.of_set(entry.first);
      if (own->prepare) own->prepare(batch_.pass);
    }
    lanes_.push_back({own, entry.second});
  }
}

int64_t Forward::prefix_shift(const Plan& plan, const std::string& stream) const {
  int64_t shift = 0;
  if (plan.empty()) return shift;
  for (const Site& site : model_.sites()) {
    const SitePlan* at = site.kind == SiteKind::KeyValue ? plan.at(site.id) : nullptr;
    if (at == nullptr || !starts_with(site.name, stream + ".") || !ends_with(site.name, "self.kv"))
      continue;
    for (const SitePlan::Entry& entry : at->edits)
      if (const Extend* extend = std::get_if<Extend>(entry.edit);
          extend != nullptr && extend->shift && extend->keys.defined())
        shift = std::max(shift, extend->keys.size(-2));
  }
  return shift;
}

void Forward::enter(const std::string& stream, const RowIndex& rows) {
  const std::map<std::string, RowState>::iterator found = streams_.find(stream);
  if (found != streams_.end()) {
    state_ = &found->second;
  } else {
    state_ = &streams_.emplace(stream, RowState::begin(batch_, rows)).first->second;
    for (const Lane& lane : lanes_) {
      const int64_t shift = prefix_shift(*lane.plan, stream);
      if (shift == 0) continue;
      state_->start.resize(static_cast<size_t>(rows.sequences()), 0);
      if (lane.sequences.empty()) std::fill(state_->start.begin(), state_->start.end(), shift);
      for (const int64_t b : lane.sequences) state_->start[static_cast<size_t>(b)] = shift;
    }
  }
  split_rows();
}

void Forward::enter_pooled() {
  const RowIndex pooled =
      RowIndex::from_lengths(std::vector<int64_t>(static_cast<size_t>(rows().sequences()), 1));
  state_ = &streams_.insert_or_assign("pooled", RowState::begin(batch_, pooled)).first->second;
  split_rows();
}

bool Forward::repeatable(const std::string& block) const {
  if (lanes_.size() > 1 || batch_.cache != nullptr || !wanted_.empty()) return false;
  for (const Site& site : model_.sites()) {
    const SitePlan* plan = lanes_[0].plan->at(site.id);
    if (plan == nullptr) continue;
    if (plan->read) return false;  // the pass would keep its graph, and the graph the pass
    const bool here = starts_with(site.name, block);
    if (here && !plan->experts.empty()) return false;
    for (const SitePlan::Entry& entry : plan->edits) {
      if (std::holds_alternative<Keep>(*entry.edit)) return false;  // what leaves is remembered
      if (here && (entry.passing || std::holds_alternative<Observe>(*entry.edit))) return false;
      const Apply* apply = std::get_if<Apply>(entry.edit);
      if (here && apply != nullptr && apply->stateful) return false;
    }
  }
  return true;
}

void Forward::go_back(const Moment& moment, const std::string& stream) {
  streams_ = moment;
  state_ = &streams_.at(stream);
  split_rows();
}

Tensor Forward::positions() {
  return state_->positions.defined() ? state_->positions : state_->counted();
}

Tensor Forward::of_rows(const Tensor& given) const {
  if (!state_->origin.defined()) return given;
  return given.index_select(0, state_->origin.clamp_min(0)).masked_fill(state_->origin.lt(0), 0);
}

void Forward::split_rows() {
  parts_.clear();
  lane_order_ = Tensor();
  const RowIndex& rows = state_->rows;
  if (lanes_.size() == 1) {
    parts_.push_back({lanes_[0].plan, Tensor(), rows, state_->keys, 0});
    return;
  }
  std::vector<int64_t> back(static_cast<size_t>(rows.rows()));
  int64_t next = 0;
  bool in_order = true;
  for (const Lane& lane : lanes_) {
    std::vector<int64_t> index, lengths;
    for (const int64_t b : lane.sequences) {
      lengths.push_back(rows.length(b));
      for (int64_t r = rows.begin(b); r < rows.end(b); ++r) {
        in_order = in_order && r == next;
        back[static_cast<size_t>(r)] = next++;
        index.push_back(r);
      }
    }
    const bool run =
        !index.empty() && index.back() - index.front() + 1 == static_cast<int64_t>(index.size());
    const Tensor which = int64_tensor(index);
    parts_.push_back({lane.plan, which, RowIndex::from_lengths(lengths),
                      state_->keys.defined() ? state_->keys.index_select(0, which) : Tensor(),
                      run ? index.front() : -1});
  }
  if (!in_order) lane_order_ = int64_tensor(back);
}

Tensor Forward::lane_rows(const Tensor& x, const LaneRows& part) const {
  if (!part.index.defined()) return x;
  return part.begin >= 0 ? x.narrow(0, part.begin, part.index.numel())
                         : x.index_select(0, part.index);
}

Tensor Forward::join_lanes(const std::vector<Tensor>& parts) const {
  if (parts.size() == 1) return parts[0];
  const Tensor all = at::cat(parts);
  return lane_order_.defined() ? all.index_select(0, lane_order_) : all;
}

int Forward::resolve(int site) const {
  if (experts_.empty() || site < 0) return site;
  const int copy = experts_[static_cast<size_t>(site)];
  return copy >= 0 ? copy : site;
}

bool Forward::touched(int site) const {
  if (site < 0) return false;
  const int id = resolve(site);
  for (const Lane& lane : lanes_)
    if (lane.plan->at(id) != nullptr) return true;
  return wanted(site);
}

View Forward::view_of(const Tensor& x, const RowIndex& rows, const Tensor& keys,
                      const SitePlan::Entry& entry, size_t lane) {
  if (lanes_.size() == 1) return View{x, rows, reads_, batch_.pass, keys, entry.dropout_site};
  lane_reads_.resize(lanes_.size());
  std::map<std::string, Tensor>& own = lane_reads_[lane];
  own = reads_;
  for (std::pair<const std::string, Tensor>& read : own)
    if (read.second.size(0) == state_->rows.rows())
      read.second = lane_rows(read.second, parts_[lane]);
  return View{x, rows, own, batch_.pass, keys, entry.dropout_site};
}

namespace {

/// y * by or y + by in the master type, so that small trained steps survive bf16.
Tensor in_master(const Tensor& y, const Tensor& by, bool multiply) {
  const Tensor wide = cast(y, by.scalar_type());
  Tensor shaped = by;
  if (y.dim() == 3) {
    shaped =
        by.numel() == y.numel() ? by.reshape(y.sizes()) : by.reshape({1, y.size(1), y.size(2)});
  } else if (by.dim() == 2 && by.size(0) != y.size(0)) {
    shaped = by.reshape({1, -1});
  }
  return cast(multiply ? wide * shaped : wide + shaped, y.scalar_type());
}

}  // namespace

Tensor Forward::run_flow(const Site& site, const SitePlan::Entry& entry, const Tensor& x,
                         const RowIndex& rows, const Tensor& keys, size_t lane) {
  if (const Scale* scale = std::get_if<Scale>(entry.edit)) return in_master(x, scale->out, true);
  if (const Shift* shift = std::get_if<Shift>(entry.edit)) return in_master(x, shift->by, false);
  const View view = view_of(x, rows, keys, entry, lane);
  if (const Observe* observe = std::get_if<Observe>(entry.edit)) {
    observe->see(view);
    return x;
  }
  const Tensor y = std::get<Apply>(*entry.edit).fn(view);
  if (!y.defined() || y.sizes() != x.sizes())
    fail(ErrorCode::Internal,
         "{}: the function at site {} must return rows of the shape it was given", entry.owner,
         site.name);
  return cast(y, x.scalar_type());
}

Tensor Forward::run_lane(const Site& site, const SitePlan& plan, size_t lane, Tensor x) {
  const auto structural = [](const Edit& edit) {
    return std::holds_alternative<Extend>(edit) || std::holds_alternative<Keep>(edit);
  };
  for (size_t i = 0; i < plan.edits.size();) {
    const SitePlan::Entry& entry = plan.edits[i];
    if (const Extend* extend = std::get_if<Extend>(entry.edit)) {
      x = extend_rows(*extend, entry, lane, x);
      ++i;
      continue;
    }
    if (const Keep* keep = std::get_if<Keep>(entry.edit)) {
      x = drop_rows(*keep, entry, lane, x);
      ++i;
      continue;
    }
    std::vector<Tensor> parts;
    for (size_t other = 0; other < parts_.size(); ++other)
      parts.push_back(lane_rows(x, parts_[other]));
    for (; i < plan.edits.size() && !structural(*plan.edits[i].edit); ++i)
      parts[lane] =
          run_flow(site, plan.edits[i], parts[lane], parts_[lane].rows, parts_[lane].keys, lane);
    x = join_lanes(parts);
  }
  return x;
}

Tensor Forward::at(int id_in, const Tensor& x) {
  if (!touched(id_in)) return x;
  const int id = resolve(id_in);
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  Tensor y = x;
  bool read = false;
  for (size_t lane = 0; lane < lanes_.size(); ++lane) {
    const SitePlan* plan = lanes_[lane].plan->at(id);
    if (plan == nullptr) continue;
    read = read || plan->read;
    y = run_lane(site, *plan, lane, y);
  }
  if (read) reads_[site.name] = y;
  if (experts_.empty() && wanted(id)) captured_[site.name] = state_->of_the_input(y);
  return y;
}

Tensor Forward::finish(const Tensor& x, bool put_back) {
  if (!state_->origin.defined() || state_->narrowed) return x;
  const Tensor y = put_back ? state_->put_back(x) : state_->of_the_input(x);
  state_->finished(batch_, put_back);
  split_rows();
  return y;
}

Tensor Forward::part(int id, const Tensor& x, const std::function<Tensor(const Tensor&)>& run) {
  bool routed = false;
  for (const Lane& lane : lanes_) routed = routed || (id >= 0 && lane.plan->at(id) != nullptr);
  if (!routed) return run(x);
  if (lanes_.size() > 1)
    fail(ErrorCode::Unsupported,
         "{}: a mixture of experts cannot run beside other adapter sets in one batch; run its "
         "sequences on their own",
         model_.sites()[static_cast<size_t>(id)].name);
  return mixture(model_.sites()[static_cast<size_t>(id)], *lanes_[0].plan->at(id), x, run);
}

DropSite Forward::drop(int id, double p) const {
  if (!batch_.pass.training || p <= 0) return {};
  const std::string& name = model_.sites()[static_cast<size_t>(id)].name;
  return {p, state_->keys, static_cast<uint32_t>(name_key(name))};
}

Tensor dropout(const Tensor& x, double p, const View& view) {
  if (!view.pass.training || p <= 0) return x;
  const Tensor flat = x.dim() == 2 ? x : x.reshape({x.size(0), -1});
  return dropout(flat, DropSite{p, view.row_keys, view.dropout_site}).reshape(x.sizes());
}

}  // namespace attune
