#include "core/adaptation.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "core/attachment.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

namespace {

struct Attached {
  TunerSpec spec;
  std::unique_ptr<Tuner> tuner;
  std::unique_ptr<Recorder> recorder;
};

struct Set {
  std::string name;
  bool enabled = true;
  std::vector<Attached> tuners;
};

std::string label(const Set& set, size_t position) {
  return format("{}/{}.{}", set.name, position, set.tuners[position].spec.method);
}

}  // namespace

struct Adaptation::State {
  Model& model;
  const Registry<Tuner>& methods;
  uint64_t seed;
  std::vector<Set> sets;
  Thawed thawed;
  struct PreImage {
    int storage;
    Tensor weight, bias;
  };
  std::vector<PreImage> merged;
  std::vector<std::string> merged_sets;

  Set* find(std::string_view name) {
    for (Set& set : sets)
      if (set.name == name) return &set;
    return nullptr;
  }
  Set& need(std::string_view name) {
    Set* set = find(name);
    if (set == nullptr) fail(ErrorCode::BadInput, "there is no adapter set \"{}\"", name);
    return *set;
  }
  void plan();
  void plan_thawed(const Recorder& recorder);
  void drop_unused_thaws();
};

void Adaptation::State::plan_thawed(const Recorder& recorder) {
  for (const Owned& owned : recorder.owned()) {
    if (owned.role != Owned::Role::Thawed) continue;
    const int storage = model.sites()[static_cast<size_t>(owned.site)].storage;
    for (const Site& site : model.sites()) {
      if (site.storage != storage || site.kind != SiteKind::Weight) continue;
      SitePlan& plan = model.plan().need(site.id);
      (ends_with(owned.name, "/weight") ? plan.weight : plan.bias) = owned.value;
    }
  }
}

void Adaptation::State::plan() {
  Plan& plan = model.plan();
  plan.clear();
  for (const Set& set : sets) {
    if (!set.enabled) continue;
    for (size_t i = 0; i < set.tuners.size(); ++i) {
      const Recorder& recorder = *set.tuners[i].recorder;
      plan_thawed(recorder);
      for (const std::pair<int, Edit>& entry : recorder.edits()) {
        const std::string owner = label(set, i);
        const std::string& site = model.sites()[static_cast<size_t>(entry.first)].name;
        plan.need(entry.first).edits.push_back(
            {&entry.second, owner, static_cast<uint32_t>(name_key(owner + "/" + site))});
        const Names* reads = nullptr;
        if (const Apply* apply = std::get_if<Apply>(&entry.second)) reads = &apply->reads;
        if (const Observe* observe = std::get_if<Observe>(&entry.second)) reads = &observe->reads;
        if (reads == nullptr) continue;
        for (const std::string& name : *reads) plan.need(model.site(name).id).read = true;
      }
    }
  }
  plan.prepare = [this](const Pass& pass) {
    for (Set& set : sets)
      if (set.enabled)
        for (Attached& attached : set.tuners) attached.tuner->prepare(pass);
  };
}

void Adaptation::State::drop_unused_thaws() {
  for (Thawed::iterator it = thawed.begin(); it != thawed.end();) {
    bool used = false;
    for (const Set& set : sets)
      for (const Attached& attached : set.tuners)
        for (const Owned& owned : attached.recorder->owned()) used = used || owned.value.is_same(it->second);
    it = used ? std::next(it) : thawed.erase(it);
  }
}

Adaptation::Adaptation(Model& model, const Registry<Tuner>& methods, uint64_t seed)
    : state_(new State{model, methods, seed, {}, {}, {}, {}}) {}

Adaptation::~Adaptation() {
  unmerge();
  state_->model.plan().clear();
  state_->model.plan().prepare = nullptr;
}

Tuner& Adaptation::add(const std::string& set_name, const TunerSpec& spec, const std::string& path) {
  const Entry<Tuner>& entry = state_->methods.at(spec.method);
  const Options options(entry.options, Node::from_json(spec.options, {path, 0, 0}), path);
  Set* set = state_->find(set_name);
  Attached attached{{spec.method, options.to_json()}, entry.make(options), nullptr};
  const std::string stream = format("{}.{}", set != nullptr ? set->tuners.size() : 0, spec.method);
  attached.recorder = std::make_unique<Recorder>(state_->model, state_->thawed, stream, state_->seed);
  try {
    attached.tuner->attach(*attached.recorder);
  } catch (...) {
    state_->drop_unused_thaws();  // of the half-attached tuner
    throw;
  }
  if (set == nullptr) {
    state_->sets.push_back({set_name, true, {}});
    set = &state_->sets.back();
  }
  set->tuners.push_back(std::move(attached));
  state_->plan();
  return *set->tuners.back().tuner;
}

void Adaptation::remove(std::string_view name, int position) {
  unmerge();  // what was folded in must not stay behind
  Set& set = state_->need(name);
  if (position < 0) {
    std::erase_if(state_->sets, [&](const Set& other) { return &other == &set; });
  } else {
    ATTUNE_ASSERT(static_cast<size_t>(position) < set.tuners.size());
    set.tuners.erase(set.tuners.begin() + position);
  }
  state_->drop_unused_thaws();
  state_->plan();
}

void Adaptation::enable(std::string_view name, bool on) {
  state_->need(name).enabled = on;
  state_->plan();
}

int32_t Adaptation::index(std::string_view name) const {
  return static_cast<int32_t>(&state_->need(name) - state_->sets.data());
}

std::vector<std::string> Adaptation::sets() const {
  std::vector<std::string> names;
  for (const Set& set : state_->sets) names.push_back(set.name);
  return names;
}

std::vector<TunerSpec> Adaptation::specs(std::string_view name) const {
  std::vector<TunerSpec> result;
  for (const Attached& attached : state_->need(name).tuners) result.push_back(attached.spec);
  return result;
}

void Adaptation::scale(std::string_view name, double factor) {
  at::NoGradGuard no_grad;
  for (Attached& attached : state_->need(name).tuners) {
    for (const Owned& owned : attached.recorder->owned()) {
      const WeightSlot& slot = state_->model.slot(state_->model.sites()[static_cast<size_t>(owned.site)]);
      if (owned.role != Owned::Role::Thawed || slot.fresh) continue;  // a new head has no base to go back to
      const Tensor& base = ends_with(owned.name, "/weight") ? slot.weight : slot.bias;
      owned.value.detach().copy_(base + (owned.value.detach() - base) * factor);
      mark_changed(owned.value);
    }
    for (std::pair<int, Edit>& entry : attached.recorder->edits()) {
      if (LowRank* low = std::get_if<LowRank>(&entry.second)) {
        low->scale *= factor;
      } else if (Shift* shift = std::get_if<Shift>(&entry.second)) {
        shift->by = shift->by * factor;
      } else {
        fail(ErrorCode::Unsupported, "scaling an adapter by {}: {} of method {} has no strength to scale", factor,
             verb_name(entry.second), attached.spec.method);
      }
    }
  }
}

void Adaptation::merge(std::string_view name) {
  State& state = *state_;
  Set& set = state.need(name);
  std::vector<std::string> refused;
  std::map<int, Affine> folded;  // by storage
  std::map<int, int> users;
  for (const Site& site : state.model.sites())
    if (site.storage >= 0) ++users[site.storage];
  at::NoGradGuard no_grad;
  for (const Attached& attached : set.tuners) {
    for (const Owned& owned : attached.recorder->owned()) {
      if (owned.role != Owned::Role::Thawed) continue;
      const Site& site = state.model.sites()[static_cast<size_t>(owned.site)];
      const WeightSlot& slot = state.model.slot(site);
      Affine& map = folded.try_emplace(site.storage, Affine{slot.weight, slot.bias}).first->second;
      (ends_with(owned.name, "/weight") ? map.weight : map.bias) = owned.value.detach().clone();
    }
    for (const std::pair<int, Edit>& entry : attached.recorder->edits()) {
      const Site& site = state.model.sites()[static_cast<size_t>(entry.first)];
      if (!folds(site, entry.second) || users[site.storage] > 1) {
        refused.push_back(format("{} of {} at {}", verb_name(entry.second), attached.spec.method, site.name));
        continue;
      }
      const WeightSlot& slot = state.model.slot(site);
      Affine& map = folded.try_emplace(site.storage, Affine{slot.weight, slot.bias}).first->second;
      map = fold(map, entry.second);
    }
  }
  if (!refused.empty())
    fail(ErrorCode::Unsupported, "merging \"{}\": {} edit(s) cannot be folded into weights: {}. Keep the adapter beside "
         "the model instead", name, refused.size(), join(refused, ", "));
  for (const std::pair<const int, Affine>& entry : folded) {
    WeightSlot& slot = state.model.slot_at(static_cast<size_t>(entry.first));
    state.merged.push_back({entry.first, slot.weight, slot.bias});
    slot.weight = entry.second.weight.detach().contiguous();
    slot.bias = entry.second.bias.defined() ? entry.second.bias.detach().contiguous() : Tensor();
    slot.copies = {};  // keyed by address, which the allocator may give out again
  }
  state.merged_sets.emplace_back(name);
  enable(name, false);
}

void Adaptation::unmerge() {
  while (!state_->merged.empty()) {
    const State::PreImage& image = state_->merged.back();
    WeightSlot& slot = state_->model.slot_at(static_cast<size_t>(image.storage));
    slot.weight = image.weight;
    slot.bias = image.bias;
    slot.copies = {};
    state_->merged.pop_back();
  }
  for (const std::string& name : state_->merged_sets) enable(name, true);
  state_->merged_sets.clear();
}

std::vector<Param> Adaptation::trainable() const {
  std::vector<Param> result;
  for (const Set& set : state_->sets) {
    for (size_t i = 0; i < set.tuners.size(); ++i) {
      for (const Owned& owned : set.tuners[i].recorder->owned()) {
        const bool seen = std::any_of(result.begin(), result.end(),
                                      [&](const Param& p) { return p.value.is_same(owned.value); });
        if (owned.role == Owned::Role::Buffer || seen) continue;
        const Site& site = state_->model.sites()[static_cast<size_t>(owned.site)];
        const bool fresh = owned.role == Owned::Role::Thawed && state_->model.slot(site).fresh;
        result.push_back({label(set, i) + "/" + owned.name, owned.value, owned.learn.lr_scale,
                          owned.learn.weight_decay, owned.learn.mask, site.layer, owned.decays, fresh});
      }
    }
  }
  return result;
}

Tensor Adaptation::penalty() const {
  Tensor sum;
  for (const Set& set : state_->sets)
    for (const Attached& attached : set.tuners) {
      const Tensor part = set.enabled ? attached.tuner->penalty() : Tensor();
      if (part.defined()) sum = sum.defined() ? sum + part : part;
    }
  return sum;
}

std::vector<std::pair<std::string, Tensor>> Adaptation::tensors(std::string_view name) const {
  std::vector<std::pair<std::string, Tensor>> result;
  std::set<const void*> seen;  // two methods that train one tensor share it: it is stored once
  const Set& set = state_->need(name);
  for (size_t i = 0; i < set.tuners.size(); ++i)
    for (const Owned& owned : set.tuners[i].recorder->owned())
      if (seen.insert(owned.value.unsafeGetTensorImpl()).second)
        result.emplace_back(format("{}.{}/{}", i, set.tuners[i].spec.method, owned.name), owned.value.detach());
  return result;
}

std::vector<const Recorder*> Adaptation::recorders(std::string_view name) const {
  std::vector<const Recorder*> result;
  for (const Attached& attached : state_->need(name).tuners) result.push_back(attached.recorder.get());
  return result;
}

Json Adaptation::manifest(std::string_view name) const {
  Json list = Json::array();
  for (const Attached& attached : state_->need(name).tuners)
    list.push_back(Json{{attached.spec.method, attached.spec.options}});
  return list;
}

void Adaptation::restore(const std::string& set, const Json& manifest,
                         const std::vector<std::pair<std::string, Tensor>>& given, const std::string& where) {
  for (const Json& item : manifest)
    add(set, {item.begin().key(), item.begin().value()}, where);
  std::map<std::string, Tensor> targets;
  for (const std::pair<std::string, Tensor>& entry : tensors(set)) targets.insert(entry);
  at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : given) {
    const std::map<std::string, Tensor>::iterator target = targets.find(entry.first);
    if (target == targets.end())
      fail(ErrorCode::Corrupt, "{}: tensor {} belongs to none of the methods listed beside it", where, entry.first);
    if (target->second.sizes() != entry.second.sizes())
      fail(ErrorCode::Corrupt, "{}: tensor {} has another shape than the model needs", where, entry.first);
    target->second.copy_(entry.second);
    mark_changed(target->second);
    targets.erase(target);
  }
  if (!targets.empty())
    fail(ErrorCode::Corrupt, "{}: {} tensor(s) are missing, the first is {}", where, targets.size(),
         targets.begin()->first);
}

Cost Adaptation::cost() const {
  Cost cost;
  for (const Param& param : trainable()) (param.head ? cost.head : cost.trainable) += param.value.numel();
  for (const Set& set : state_->sets)
    for (const std::pair<std::string, Tensor>& entry : tensors(set.name))
      cost.stored_bytes += entry.second.numel() * static_cast<int64_t>(entry.second.element_size());
  return cost;
}

}  // namespace attune
