// What runs where: the plan of an adaptation's edits.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "core/adaptation_state.h"
#include "tensor/autograd.h"
#include "tensor/late_rows.h"
#include "tensor/torch.h"

namespace attune {

std::string tuner_label(const AdapterSet& set, const Attached& attached) {
  return format("{}/{}.{}", set.name, attached.number, attached.spec.method);
}

bool is_head(const Site& site) {
  return starts_with(site.name, "head.");
}

namespace {

/// The sites an edit reads, or null.
const Names* reads_of(const Edit& edit) {
  if (const Apply* apply = std::get_if<Apply>(&edit)) return &apply->reads;
  if (const Observe* observe = std::get_if<Observe>(&edit)) return &observe->reads;
  if (const LowRank* low = std::get_if<LowRank>(&edit)) return &low->reads;
  if (const Extend* extend = std::get_if<Extend>(&edit)) return &extend->reads;
  if (const Keep* keep = std::get_if<Keep>(&edit)) return &keep->reads;
  return nullptr;
}

}  // namespace

std::set<SitePart> trained_apart(const AdapterSet& set) {
  std::set<SitePart> apart;
  for (const Attached& attached : set.tuners)
    for (const Owned& owned : attached.recorder->owned())
      if (owned.role == Owned::Role::Thawed && owned.alone)
        apart.insert({owned.site, ends_with(owned.name, "/weight")});
  return apart;
}

void Adaptation::State::plan_thawed(Plan& plan, const AdapterSet& set) const {
  std::vector<const Owned*> thawed;
  for (const Attached& attached : set.tuners)
    for (const Owned& owned : attached.recorder->owned())
      if (owned.role == Owned::Role::Thawed) thawed.push_back(&owned);
  const std::set<SitePart> apart = trained_apart(set);
  for (const Owned* owned : thawed) {
    const bool weight = ends_with(owned->name, "/weight");
    const Site& own = *site_of(*owned);
    for (const Site& site : model.sites()) {
      const bool same = owned->alone ? site.id == own.id
                                     : site.kind == SiteKind::Weight &&
                                           apart.count({site.id, weight}) == 0 &&
                                           model.tied_storage(site) == model.tied_storage(own);
      if (!same || site.hidden) continue;
      SitePlan& at = plan.need(site.id);
      std::vector<Share>& shares = weight ? at.weights : at.biases;
      const bool seen = std::any_of(shares.begin(), shares.end(), [&](const Share& share) {
        return share.value.is_same(owned->value);  // several tuners of one set train it
      });
      if (!seen) shares.push_back({owned->value, owned->base});
    }
  }
}

/// One set's value stands in for the base tensor as it is; several add up: theta0 + sum (theta_s -
/// theta0). Reference: Ansell et al. 2022, arXiv 2110.07560, section 3.3 (composition).
void Adaptation::State::plan_sums(Plan& plan) {
  std::vector<Sum>& found = sums[&plan];
  found.clear();
  for (const Site& site : model.sites()) {
    SitePlan* at = plan.mutable_at(site.id);
    for (const bool weight : {true, false}) {
      if (at == nullptr || (weight ? at->weights : at->biases).empty()) continue;
      const std::vector<Share>& shares = weight ? at->weights : at->biases;
      const WeightSlot& slot = model.slot(site);
      const bool alone =
          shares.size() == 1 && shares[0].base.is_same(weight ? slot.weight : slot.bias);
      (weight ? at->weight : at->bias) = shares.back().value;
      // A new head has nothing to add to: who loads adapters together makes sure that they agree.
      if (!alone && !slot.fresh) found.push_back({site.id, weight, {}});
    }
  }
}

namespace {

bool same_as_before(const std::vector<Share>& shares, size_t place) {
  return std::any_of(
      shares.begin(), shares.begin() + static_cast<std::ptrdiff_t>(place),
      [&](const Share& other) { return at::equal(other.value, shares[place].value); });
}

}  // namespace

void Adaptation::State::add_up(Plan& plan) {
  for (Sum& sum : sums[&plan]) {
    SitePlan& at = *plan.mutable_at(sum.site);
    const Site& site = model.sites()[static_cast<size_t>(sum.site)];
    const WeightSlot& slot = model.slot(site);
    const std::vector<Share>& shares = sum.weight ? at.weights : at.biases;
    std::vector<int64_t> versions;
    bool graph = false;
    for (const Share& share : shares) {
      bring_rows(share.value);
      versions.push_back(version_of(share.value));
      graph = graph || (at::GradMode::is_enabled() && share.value.requires_grad());
    }
    if (!graph && versions == sum.versions) continue;
    Tensor total = sum.weight ? slot.dense() : slot.bias;
    for (size_t i = 0; i < shares.size(); ++i)
      if (graph || !is_head(site) || !same_as_before(shares, i))
        total = total + (shares[i].value - shares[i].base.to(shares[i].value.scalar_type()));
    (sum.weight ? at.weight : at.bias) = total;
    if (sum.weight) at.copies = WeightCopies();
    sum.versions = graph ? std::vector<int64_t>() : std::move(versions);  // a graph is one pass's
  }
}

/// Adds an edit where it was attached, and in every shown copy of that site.
void Adaptation::State::plan_edit(Plan& plan, int id, const SitePlan::Entry& entry) const {
  plan.need(id).edits.push_back(entry);
  for (const Site& site : model.sites())
    if (site.copy_of == id && !site.hidden) plan.need(site.id).edits.push_back(entry);
}

void Adaptation::State::plan_set(Plan& plan, const AdapterSet& set) const {
  plan_thawed(plan, set);
  for (const Attached& attached : set.tuners) {
    const Recorder& recorder = *attached.recorder;
    for (const std::pair<int, Edit>& entry : recorder.edits()) {
      const std::string owner = tuner_label(set, attached);
      const Site& site = model.sites()[static_cast<size_t>(entry.first)];
      plan_edit(plan, entry.first,
                {&entry.second, owner, static_cast<uint32_t>(name_key(owner + "/" + site.name))});
      const Names* reads = reads_of(entry.second);
      if (reads == nullptr) continue;
      for (const std::string& name : *reads) {
        SitePlan& source = plan.need(model.site(name).id);
        source.read = true;
        source.read_whole = source.read_whole || !by_row(site, entry.second);
      }
    }
  }
}

/// Tells each mixture which site of each copy stands for which.
void Adaptation::State::plan_experts(Plan& plan) const {
  for (const Site& part : model.sites()) {
    SitePlan* at = plan.mutable_at(part.id);
    if (part.kind != SiteKind::Part || at == nullptr || at->edits.empty()) continue;
    const Route& route = std::get<Route>(*at->edits.back().edit);
    for (const std::vector<int>& ids : model.add_experts(part, route.experts)) {
      std::vector<int> map(model.sites().size(), -1);
      for (const int id : ids)
        map[static_cast<size_t>(model.sites()[static_cast<size_t>(id)].copy_of)] = id;
      at->experts.push_back(std::move(map));
    }
  }
}

void Adaptation::State::prepare(const Pass& pass, const AdapterSet* only) const {
  for (const AdapterSet& set : sets)
    if (only != nullptr ? &set == only : set.enabled)
      for (const Attached& attached : set.tuners) {
        attached.tuner->prepare(pass);
        attached.recorder->refresh();
      }
}

void Adaptation::State::plan() {
  Plan& plan = model.plan();
  plan.clear();
  set_plans.clear();
  sums.clear();
  hide_unused_copies();
  for (const AdapterSet& set : sets)
    if (set.enabled) plan_set(plan, set);
  plan_experts(plan);
  plan_sums(plan);
  plan.prepare = [this](const Pass& pass) {
    prepare(pass, nullptr);
    add_up(model.plan());
  };
  plan.of_set = [this](int32_t set) -> const Plan& { return plan_of(set); };
}

const Plan& Adaptation::State::plan_of(int32_t index) {
  if (index < 0 || static_cast<size_t>(index) >= sets.size())
    fail(ErrorCode::BadInput, "a batch names adapter set {}, but {} set(s) are loaded", index,
         sets.size());
  const std::pair<std::map<int32_t, Plan>::iterator, bool> made = set_plans.try_emplace(index);
  Plan& plan = made.first->second;
  if (!made.second) return plan;
  const AdapterSet& set = *std::next(sets.begin(), index);
  plan_set(plan, set);
  plan_experts(plan);
  plan_sums(plan);
  plan.prepare = [this, &set, &plan](const Pass& pass) {
    prepare(pass, &set);
    add_up(plan);
  };
  return plan;
}

/// Copies of a part's sites are shown while some tuner routes it.
void Adaptation::State::hide_unused_copies() {
  std::set<int> shown;
  for (const AdapterSet& set : sets)
    for (const Attached& attached : set.tuners)
      for (const std::pair<int, Edit>& entry : attached.recorder->edits())
        if (const Route* route = std::get_if<Route>(&entry.second)) {
          const Site part = model.sites()[static_cast<size_t>(entry.first)];
          for (const std::vector<int>& ids : model.add_experts(part, route->experts))
            shown.insert(ids.begin(), ids.end());
        }
  for (size_t i = 0; i < model.sites().size(); ++i)
    if (model.sites()[i].copy_of >= 0)
      model.hide(static_cast<int>(i), shown.count(static_cast<int>(i)) == 0);
}

void Adaptation::State::drop_unused_thaws(AdapterSet& set) {
  for (Thawed::iterator it = set.thawed.begin(); it != set.thawed.end();) {
    bool used = false;
    for (const Attached& attached : set.tuners)
      for (const Owned& owned : attached.recorder->owned())
        used = used || owned.value.is_same(it->second.value);
    it = used ? std::next(it) : set.thawed.erase(it);
  }
}

void Adaptation::State::check_partners(const AdapterSet& set) const {
  const Attached& added = set.tuners.back();
  const Entry<Tuner>& entry = methods.at(added.spec.method);
  std::map<int, std::string> routes;
  for (const Attached& other : set.tuners) {
    for (const std::pair<int, Edit>& edit : other.recorder->edits()) {
      if (!std::holds_alternative<Route>(edit.second)) continue;
      const std::pair<std::map<int, std::string>::iterator, bool> made =
          routes.try_emplace(edit.first, other.spec.method);
      if (!made.second)
        fail(ErrorCode::BadInput,
             "{} and {} both make a mixture of {}; a part can be one mixture only: give them "
             "different sites",
             made.first->second, other.spec.method,
             model.sites()[static_cast<size_t>(edit.first)].name);
    }
    if (&other == &added) continue;
    const std::map<std::string, std::string>& theirs = methods.at(other.spec.method).excludes;
    const std::map<std::string, std::string>::const_iterator mine =
        entry.excludes.find(other.spec.method);
    const std::map<std::string, std::string>::const_iterator their = theirs.find(entry.name);
    if (mine != entry.excludes.end() || their != theirs.end())
      fail(ErrorCode::BadInput, "{} and {} do not go together: {}", other.spec.method, entry.name,
           mine != entry.excludes.end() ? mine->second : their->second);
  }
}

}  // namespace attune
