#include "core/model.h"

#include "base/error.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

at::ScalarType Numerics::master() const { return master_of(compute); }
at::ScalarType Numerics::scalar() const { return scalar_of(compute); }

Model::Model() = default;
Model::~Model() = default;

const Site* Model::find(std::string_view name) const {
  for (const Site& site : sites_)
    if (site.name == name) return &site;
  return nullptr;
}

const Site& Model::site(std::string_view name) const {
  const Site* found = find(name);
  if (found == nullptr) fail(ErrorCode::Internal, "the model has no site \"{}\"", name);
  return *found;
}

WeightSlot& Model::slot(const Site& site) {
  ATTUNE_ASSERT(site.storage >= 0);
  return *slots_[static_cast<size_t>(site.storage)];
}
const WeightSlot& Model::slot(const Site& site) const { return const_cast<Model*>(this)->slot(site); }

int Model::add_site(Site site, int tied_to) {
  ATTUNE_ASSERT(find(site.name) == nullptr);
  site.id = static_cast<int>(sites_.size());
  if (site.kind == SiteKind::Weight) {
    if (tied_to >= 0) {
      site.storage = sites_[static_cast<size_t>(tied_to)].storage;
    } else {
      site.storage = static_cast<int>(slots_.size());
      slots_.push_back(std::make_unique<WeightSlot>());
    }
  }
  sites_.push_back(std::move(site));
  return sites_.back().id;
}

}  // namespace attune
