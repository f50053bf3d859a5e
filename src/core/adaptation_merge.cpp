// Folding edits into weights, and back.
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "core/adaptation_state.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {

namespace {

/// A weight site into which an edit of the rows beside it folds.
struct Neighbour {
  const Site* weight = nullptr;
  bool input = false;  // the rows go into the projection; otherwise they come out of it
};

Neighbour neighbour_of(const Model& model, const Site& site) {
  const std::string block = block_of(site);
  if (block.empty()) return {};
  const std::string point = site.name.substr(block.size());
  for (const std::string part : {"self", "cross"}) {
    if (point == part + ".heads") return {model.find(block + part + ".o"), true};
    if (point == part + ".out" && model.find(block + part + ".post_norm") == nullptr)
      return {model.find(block + part + ".o"), false};
  }
  if (point == "ffn.hidden") return {model.find(block + "ffn.down"), true};
  if (point == "ffn.out" && model.find(block + "ffn.post_norm") == nullptr)
    return {model.find(block + "ffn.down"), false};
  return {};
}

/// The weights that merging one set gives, by storage, and what cannot be folded.
class Folding {
 public:
  Folding(Model& model, const AdapterSet& set) : model_(model), apart_(trained_apart(set)) {
    count_users();
  }

  void thawed(const Owned& owned) {
    if (owned.role != Owned::Role::Thawed) return;
    const Site& site = model_.sites()[static_cast<size_t>(owned.site)];
    if (site.copy_of >= 0) return;  // its mixture is refused by itself
    if (owned.alone && !alone(site)) {
      refused_.push_back(format("training of {} apart{}", site.name, why(site, {}, false)));
      return;
    }
    change(site, owned);
    if (owned.alone) return;
    // An output that a set before parted from the table has its change all the same.
    for (const Site& other : model_.sites())
      if (other.storage != site.storage && other.copy_of < 0 &&
          model_.tied_storage(other) == model_.tied_storage(site) &&
          apart_.count({other.id, ends_with(owned.name, "/weight")}) == 0)
        change(other, owned);
  }

  void edit(const std::string& method, int id, const Edit& edit) {
    if (std::holds_alternative<Observe>(edit)) return;  // changes nothing
    const Site& site = model_.sites()[static_cast<size_t>(id)];
    if (folds(site, edit, model_.can_have_bias(site)) && alone(site)) {
      Affine& map = map_of(site);
      map = fold(map, edit, site.weight);
      return;
    }
    const Neighbour beside = neighbour_of(model_, site);
    const bool constant =
        std::holds_alternative<Scale>(edit) ||
        (std::holds_alternative<Shift>(edit) && std::get<Shift>(edit).by.numel() == site.out);
    const bool fits = constant && beside.weight != nullptr && users_[beside.weight->storage] == 1 &&
                      (model_.can_have_bias(*beside.weight) || std::holds_alternative<Scale>(edit));
    if (!fits) {
      refused_.push_back(format("{} of {} at {}{}", verb_name(edit), method, site.name,
                                why(site, beside, constant)));
    } else if (beside.input) {
      before_.push_back({beside.weight, &edit});
    } else {
      after_.push_back({beside.weight, &edit});
    }
  }

  /// Rows' edits fold in last: those of the output in their order, those of the input in reverse.
  std::map<int, Affine> finish() {
    for (const std::pair<const Site*, const Edit*>& entry : after_) {
      Affine& map = map_of(*entry.first);
      map = fold(map, *entry.second);
    }
    for (size_t i = before_.size(); i-- > 0;) {
      Affine& map = map_of(*before_[i].first);
      if (const Scale* scale = std::get_if<Scale>(before_[i].second)) {
        map.weight = map.weight * scale->out.reshape({1, -1});
      } else {
        const Tensor by = std::get<Shift>(*before_[i].second).by.reshape({1, -1});
        const Tensor more =
            matmul(by.to(map.weight.scalar_type()), map.weight, false, true).reshape({-1});
        map.bias = map.bias.defined() ? map.bias + more : more;
      }
    }
    return std::move(maps_);
  }
  const std::vector<std::string>& refused() const { return refused_; }
  /// The output was given a tensor of its own for this.
  bool unties() const { return unties_; }

 private:
  /// What was trained takes the place of a site's tensor, or what it moved by is added.
  void change(const Site& site, const Owned& owned) {
    const bool weight = ends_with(owned.name, "/weight");
    Affine& map = map_of(site);
    const WeightSlot& slot = model_.slot(site);
    const Tensor value = owned.value.detach();
    Tensor& whole = weight ? map.weight : map.bias;
    // Shared with the trained tensor until unmerge: a whole model is not copied to be written. What
    // another set has folded in before stays.
    if (slot.fresh || owned.base.is_same(weight ? slot.weight : slot.bias))
      whole = value;
    else if (is_head(site) && at::equal(whole, value))
      return;
    else if (seen_.insert({site.storage, owned.value.unsafeGetTensorImpl()}).second)
      whole = whole + (value - owned.base.to(value.scalar_type()));
  }
  void count_users() {
    users_.clear();
    for (const Site& site : model_.sites())
      if (site.storage >= 0 && site.copy_of < 0) ++users_[site.storage];
  }
  /// Does the site's tensor serve it alone? A tied output parts from the table when one of the two
  /// is to change.
  bool alone(const Site& site) {
    const int shared = site.storage;
    if (users_[shared] == 1) return true;
    if (!model_.untie(shared)) return false;
    unties_ = true;
    const std::map<int, Affine>::const_iterator trained = maps_.find(shared);
    if (trained != maps_.end()) maps_[static_cast<int>(model_.slots()) - 1] = trained->second;
    count_users();
    return users_[site.storage] == 1;
  }
  Affine& map_of(const Site& site) {
    const WeightSlot& slot = model_.slot(site);
    return maps_.try_emplace(site.storage, Affine{slot.dense(), slot.bias}).first->second;
  }
  std::string why(const Site& site, const Neighbour& beside, bool constant) const {
    if (site.storage >= 0 && users_.at(site.storage) > 1)
      return " (a tensor that several sites share)";
    if (constant && beside.weight != nullptr && !model_.can_have_bias(*beside.weight))
      return format(" ({} has no bias that could hold it)", beside.weight->name);
    if (site.kind == SiteKind::Weight && !model_.can_have_bias(site))
      return " (it has no bias that could hold it)";
    return "";
  }

  Model& model_;
  std::map<int, int> users_;
  std::map<int, Affine> maps_;
  std::set<SitePart> apart_;
  std::set<std::pair<int, const void*>> seen_;  // by storage: trained tensors that joined others
  std::vector<std::pair<const Site*, const Edit*>> before_, after_;
  std::vector<std::string> refused_;
  bool unties_ = false;
};

}  // namespace

void Adaptation::merge(std::string_view name) {
  State& state = *state_;
  const AdapterSet& set = state.need(name);
  at::NoGradGuard no_grad;
  state.prepare(Pass{}, &set);
  Folding folding(state.model, set);
  for (const bool alone : {false, true})  // what a site trains for itself comes over what it shares
    for (const Attached& attached : set.tuners)
      for (const Owned& owned : attached.recorder->owned())
        if (owned.alone == alone) folding.thawed(owned);
  for (const Attached& attached : set.tuners)
    for (const std::pair<int, Edit>& entry : attached.recorder->edits())
      folding.edit(attached.spec.method, entry.first, entry.second);
  if (!folding.refused().empty()) {
    if (folding.unties()) state.model.retie();
    fail(ErrorCode::Unsupported,
         "merging \"{}\": {} edit(s) cannot be folded into weights: {}. Keep the adapter beside "
         "the model instead",
         name, folding.refused().size(), join(folding.refused(), ", "));
  }
  for (const std::pair<const int, Affine>& entry : folding.finish()) {
    WeightSlot& slot = state.model.slot_at(static_cast<size_t>(entry.first));
    state.merged.push_back({entry.first, slot.weight, slot.bias, slot.codes});
    slot.replace(entry.second.weight.detach().contiguous(),
                 entry.second.bias.defined() ? entry.second.bias.detach().contiguous() : Tensor());
  }
  state.merged_sets.emplace_back(name);
  enable(name, false);
}

void Adaptation::unmerge() {
  while (!state_->merged.empty()) {
    const State::PreImage& image = state_->merged.back();
    WeightSlot& slot = state_->model.slot_at(static_cast<size_t>(image.storage));
    slot.replace(image.weight, image.bias, image.codes);
    state_->merged.pop_back();
  }
  state_->model.retie();
  for (const std::string& name : state_->merged_sets) enable(name, true);
  state_->merged_sets.clear();
}

}  // namespace attune
