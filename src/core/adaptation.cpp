#include "core/adaptation.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "core/adaptation_state.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

AdapterSet* Adaptation::State::find(std::string_view name) {
  for (AdapterSet& set : sets)
    if (set.name == name) return &set;
  return nullptr;
}

AdapterSet& Adaptation::State::need(std::string_view name) {
  AdapterSet* set = find(name);
  if (set == nullptr) fail(ErrorCode::BadInput, "there is no adapter set \"{}\"", name);
  return *set;
}

Adaptation::Adaptation(Model& model, const Registry<Tuner>& methods, uint64_t seed)
    : state_(new State{model, methods, seed, {}, {}, {}, {}, {}}) {}

Adaptation::~Adaptation() {
  unmerge();
  state_->model.plan().clear();
  state_->model.plan().prepare = nullptr;
  state_->model.plan().of_set = nullptr;
  state_->sets.clear();
  state_->hide_unused_copies();
}

const Model& Adaptation::model() const {
  return state_->model;
}

Tuner& Adaptation::add(const std::string& set_name, const TunerSpec& spec,
                       const std::string& path) {
  const Entry<Tuner>& entry = state_->methods.at(spec.method);
  const Options options(entry.options, Node::from_json(spec.options, {path, 0, 0}), path);
  AdapterSet* set = state_->find(set_name);
  const bool new_set = set == nullptr;
  if (new_set) {
    state_->sets.push_back({set_name, true, {}, {}});
    set = &state_->sets.back();
  }
  bool added = false;
  try {
    const size_t number = set->tuners.empty() ? 0 : set->tuners.back().number + 1;
    Attached attached{{spec.method, options.to_json()}, entry.make(options), nullptr, number};
    attached.recorder = std::make_unique<Recorder>(
        state_->model, set->thawed, format("{}.{}", number, spec.method), state_->seed);
    attached.tuner->attach(*attached.recorder);
    set->tuners.push_back(std::move(attached));
    added = true;
    state_->check_partners(*set);
    state_->plan();
  } catch (...) {
    if (added) set->tuners.pop_back();
    State::drop_unused_thaws(*set);  // of the half-attached tuner
    if (new_set) state_->sets.pop_back();
    throw;
  }
  return *set->tuners.back().tuner;
}

void Adaptation::check_outputs(std::string_view name) const {
  const AdapterSet& set = state_->need(name);
  std::set<int> thawed;
  for (const Attached& attached : set.tuners)
    thawed.insert(attached.recorder->thawed_sites().begin(),
                  attached.recorder->thawed_sites().end());
  for (const Attached& attached : set.tuners)
    for (const int id : attached.recorder->thawed_sites()) {
      const Site& output = state_->model.sites()[static_cast<size_t>(id)];
      if (!starts_with(output.name, "head.")) continue;
      for (const Site& other : state_->model.sites())
        if (other.storage == output.storage && other.copy_of < 0 && thawed.count(other.id) == 0)
          fail(ErrorCode::BadInput,
               "{}: {} and {} are one tensor in this model (tied embeddings), so training the "
               "output alone would train the embeddings too; choose both, as in full: {{sites: "
               "[\"head.*\", \"{}\"]}}, or let them part: full: {{sites: \"head.*\", tied: "
               "false}}",
               attached.recorder->method(), output.name, other.name, other.name);
    }
}

void Adaptation::remove(std::string_view name, int position) {
  unmerge();  // what was folded in must not stay behind
  AdapterSet& set = state_->need(name);
  if (position < 0) {
    std::erase_if(state_->sets, [&](const AdapterSet& other) { return &other == &set; });
  } else {
    ATTUNE_ASSERT(static_cast<size_t>(position) < set.tuners.size());
    set.tuners.erase(set.tuners.begin() + position);
    State::drop_unused_thaws(set);
  }
  state_->plan();
}

void Adaptation::enable(std::string_view name, bool on) {
  state_->need(name).enabled = on;
  state_->plan();
}

int32_t Adaptation::index(std::string_view name) const {
  const AdapterSet& set = state_->need(name);
  int32_t position = 0;
  for (const AdapterSet& other : state_->sets) {
    if (&other == &set) break;
    ++position;
  }
  return position;
}

std::vector<std::string> Adaptation::sets() const {
  std::vector<std::string> names;
  for (const AdapterSet& set : state_->sets) names.push_back(set.name);
  return names;
}

std::vector<TunerSpec> Adaptation::specs(std::string_view name) const {
  std::vector<TunerSpec> result;
  for (const Attached& attached : state_->need(name).tuners) result.push_back(attached.spec);
  return result;
}

void Adaptation::scale(std::string_view name, double factor) {
  at::NoGradGuard no_grad;
  for (const Attached& attached : state_->need(name).tuners)
    for (const std::pair<int, Edit>& entry : attached.recorder->edits())
      if (!weakened(entry.second, factor))
        fail(ErrorCode::Unsupported,
             "scaling an adapter by {}: {} of method {} has no strength to scale", factor,
             verb_name(entry.second), attached.spec.method);
  std::set<const void*> seen;  // two methods that train one tensor share it
  for (Attached& attached : state_->need(name).tuners) {
    attached.recorder->scale(factor);
    for (const Owned& owned : attached.recorder->owned()) {
      if (owned.role != Owned::Role::Thawed ||
          !seen.insert(owned.value.unsafeGetTensorImpl()).second)
        continue;
      if (state_->model.slot(*state_->site_of(owned)).fresh)
        continue;  // a new head has no base to go back to
      const Tensor value = owned.value.detach(), base = owned.base.to(value.scalar_type());
      value.copy_(base + (value - base) * factor);
      mark_changed(owned.value);
    }
  }
  state_->plan();
}

namespace {

/// What either mask lets train; undefined: everything.
Tensor united(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return Tensor();
  return a.is_same(b) ? a : a.ne(0).logical_or(b.ne(0));
}

}  // namespace

std::vector<Param> Adaptation::trainable() const {
  std::vector<Param> result;
  for (const AdapterSet& set : state_->sets) {
    for (const Attached& attached : set.tuners) {
      for (const Owned& owned : attached.recorder->owned()) {
        if (owned.role == Owned::Role::Buffer || owned.role == Owned::Role::State) continue;
        const std::vector<Param>::iterator seen =
            std::find_if(result.begin(), result.end(),
                         [&](const Param& p) { return p.value.is_same(owned.value); });
        if (seen != result.end()) {
          seen->mask = united(seen->mask, owned.learn.mask);
          continue;
        }
        const Site* site = state_->site_of(owned);
        const bool fresh = owned.role == Owned::Role::Thawed && state_->model.slot(*site).fresh;
        result.push_back({tuner_label(set, attached) + "/" + owned.name, owned.value,
                          owned.learn.lr_scale, owned.learn.weight_decay, owned.learn.mask,
                          site != nullptr ? site->layer : -1, owned.decays, fresh});
      }
    }
  }
  return result;
}

void Adaptation::check(const RunLimits& limits) const {
  for (const AdapterSet& set : state_->sets)
    for (const Attached& attached : set.tuners)
      if (set.enabled) attached.tuner->check(limits);
}

void Adaptation::calibrate(const Calibration& calibration) {
  for (const AdapterSet& set : state_->sets)
    for (const Attached& attached : set.tuners)
      if (set.enabled) attached.tuner->calibrate(calibration);
}

void Adaptation::after_backward(const Pass& pass) {
  for (const AdapterSet& set : state_->sets)
    for (const Attached& attached : set.tuners)
      if (set.enabled) attached.tuner->after_backward(pass);
}

void Adaptation::after_step(const Pass& pass) {
  for (const AdapterSet& set : state_->sets)
    for (const Attached& attached : set.tuners)
      if (set.enabled) attached.tuner->after_step(pass);
}

bool Adaptation::settled() const {
  for (const AdapterSet& set : state_->sets)
    for (const Attached& attached : set.tuners)
      if (set.enabled && !attached.tuner->settled()) return false;
  return true;
}

std::vector<std::pair<std::string, Tensor>> Adaptation::states(std::string_view name) const {
  std::vector<std::pair<std::string, Tensor>> result;
  const AdapterSet& set = state_->need(name);
  for (const Attached& attached : set.tuners)
    for (const Owned& owned : attached.recorder->owned())
      if (owned.role == Owned::Role::State)
        result.emplace_back(tuner_label(set, attached) + "/" + owned.name, owned.value.detach());
  return result;
}

Tensor Adaptation::penalty() const {
  Tensor sum;
  for (const AdapterSet& set : state_->sets)
    for (const Attached& attached : set.tuners) {
      const Tensor part = set.enabled ? attached.tuner->penalty() : Tensor();
      if (part.defined()) sum = sum.defined() ? sum + part : part;
    }
  return sum;
}

std::vector<std::pair<std::string, Tensor>> Adaptation::tensors(std::string_view name) const {
  std::vector<std::pair<std::string, Tensor>> result;
  std::set<const void*> seen;  // two methods that train one tensor share it: it is stored once
  const AdapterSet& set = state_->need(name);
  for (size_t i = 0; i < set.tuners.size(); ++i)
    for (const Owned& owned : set.tuners[i].recorder->owned())
      if (owned.role != Owned::Role::State && seen.insert(owned.value.unsafeGetTensorImpl()).second)
        result.emplace_back(format("{}.{}/{}", i, set.tuners[i].spec.method, owned.name),
                            owned.value.detach());
  return result;
}

std::vector<const Recorder*> Adaptation::recorders(std::string_view name) const {
  std::vector<const Recorder*> result;
  for (const Attached& attached : state_->need(name).tuners)
    result.push_back(attached.recorder.get());
  return result;
}

Json Adaptation::manifest(std::string_view name) const {
  Json list = Json::array();
  for (const Attached& attached : state_->need(name).tuners)
    list.push_back(Json{{attached.spec.method, attached.spec.options}});
  return list;
}

void Adaptation::restore(const std::string& set, const Json& manifest,
                         const std::vector<std::pair<std::string, Tensor>>& given,
                         const std::string& where) {
  for (const Json& item : manifest) add(set, {item.begin().key(), item.begin().value()}, where);
  std::map<std::string, Tensor> targets;
  for (const std::pair<std::string, Tensor>& entry : tensors(set)) targets.insert(entry);
  at::NoGradGuard no_grad;
  for (const std::pair<std::string, Tensor>& entry : given) {
    const std::map<std::string, Tensor>::iterator target = targets.find(entry.first);
    if (target == targets.end())
      fail(ErrorCode::Corrupt, "{}: tensor {} belongs to none of the methods listed beside it",
           where, entry.first);
    if (target->second.sizes() != entry.second.sizes())
      fail(ErrorCode::Corrupt, "{}: tensor {} has another shape than the model needs", where,
           entry.first);
    target->second.copy_(entry.second);
    mark_changed(target->second);
    targets.erase(target);
  }
  if (!targets.empty())
    fail(ErrorCode::Corrupt, "{}: {} tensor(s) are missing, the first is {}", where, targets.size(),
         targets.begin()->first);
}

namespace {

/// The numbers of a tensor that train.
int64_t trained_numbers(const Param& param) {
  if (!param.mask.defined()) return param.value.numel();
  return param.mask.to(at::kBool).expand_as(param.value).sum().item<int64_t>();
}

}  // namespace

Cost Adaptation::cost() const {
  Cost cost;
  for (const Param& param : trainable())
    (param.head ? cost.head : cost.trainable) += trained_numbers(param);
  for (const AdapterSet& set : state_->sets)
    for (const std::pair<std::string, Tensor>& entry : tensors(set.name))
      cost.stored_bytes += entry.second.numel() * static_cast<int64_t>(entry.second.element_size());
  return cost;
}

}  // namespace attune
