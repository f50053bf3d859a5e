#include "core/model.h"

#include "base/error.h"
#include "base/text.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

at::ScalarType Numerics::master() const {
  return master_of(compute);
}
at::ScalarType Numerics::scalar() const {
  return scalar_of(compute);
}

Tensor WeightSlot::dense() const {
  if (codes != nullptr) return decoded(*codes, master);
  return weight.defined() ? dense_as(weight, master) : weight;
}

Tensor WeightSlot::widened() {
  if (codes != nullptr) return dense();
  if (weight.defined() && weight.scalar_type() != master) {
    weight = dense();
    copies = {};
  }
  return weight;
}

int64_t WeightSlot::numel() const {
  int64_t count = bias.defined() ? bias.numel() : 0;
  if (codes != nullptr) return count + codes->rows() * codes->cols();
  return count + (weight.defined() ? weight.numel() : 0);
}

std::vector<int64_t> WeightSlot::shape() const {
  return codes == nullptr ? weight.sizes().vec()
                          : std::vector<int64_t>{codes->rows(), codes->cols()};
}

Tensor WeightSlot::as_stored(const Tensor& values) const {
  return stored.empty() ? values : values.reshape(stored);
}

void WeightSlot::replace(Tensor weight_values, Tensor bias_values,
                         std::shared_ptr<const kernels::QuantizedMatrix> new_codes) {
  weight = std::move(weight_values);
  bias = std::move(bias_values);
  codes = std::move(new_codes);
  copies = {};  // keyed by address, which the allocator may give out again
}

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
const WeightSlot& Model::slot(const Site& site) const {
  return const_cast<Model*>(this)->slot(site);
}

int Model::add_site(Site site, int tied_to) {
  ATTUNE_ASSERT(find(site.name) == nullptr);
  site.id = static_cast<int>(sites_.size());
  if (site.kind == SiteKind::Weight) {
    if (tied_to >= 0) {
      site.storage = sites_[static_cast<size_t>(tied_to)].storage;
    } else {
      site.storage = static_cast<int>(slots_.size());
      slots_.push_back(std::make_unique<WeightSlot>());
      slots_.back()->master = numerics_.master();
    }
  }
  sites_.push_back(std::move(site));
  return sites_.back().id;
}

namespace {

/// Is `name` inside the part: what it computes with and what it gives, not what it is given?
bool inside(const std::string& part, const std::string& name) {
  if (!starts_with(name, part + ".")) return false;
  const std::string point = name.substr(part.size() + 1);
  return point != "in" && point != "norm" && point != "post_norm" && point != "memory" &&
         point != "bias";
}

}  // namespace

std::vector<std::vector<int>> Model::add_experts(const Site& part, int experts) {
  std::vector<int> originals;
  for (const Site& site : sites_)
    if (site.copy_of < 0 && inside(part.name, site.name)) originals.push_back(site.id);
  std::vector<std::vector<int>> result(static_cast<size_t>(experts));
  for (int expert = 0; expert < experts; ++expert) {
    for (const int original : originals) {
      Site copy = sites_[static_cast<size_t>(original)];
      copy.name = format("{}.e{}{}", part.name, expert, copy.name.substr(part.name.size()));
      const Site* present = find(copy.name);
      if (present == nullptr) {
        copy.copy_of = original;
        copy.hidden = true;
        copy.id = static_cast<int>(sites_.size());
        sites_.push_back(std::move(copy));
        present = &sites_.back();
      }
      result[static_cast<size_t>(expert)].push_back(present->id);
    }
  }
  return result;
}

}  // namespace attune
