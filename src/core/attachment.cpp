#include "core/attachment.h"

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "core/storage.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/file_table.h"
#include "tensor/torch.h"

namespace attune {

namespace {
template <class Draw>
Tensor drawn(const std::vector<int64_t>& shape, at::ScalarType type, const Draw& draw) {
  Tensor values = at::empty(shape, at::kDouble);
  double* out = static_cast<double*>(values.data_ptr());
  for (int64_t i = 0; i < values.numel(); ++i) out[i] = draw(static_cast<uint64_t>(i));
  return values.to(type);
}
}  // namespace

Tensor normal_tensor(uint64_t key, const std::vector<int64_t>& shape, double deviation,
                     at::ScalarType type) {
  const Stream64 stream(key);
  return drawn(shape, type, [&](uint64_t i) { return stream.normal(i) * deviation; });
}

Recorder::Recorder(Model& model, Thawed& thawed, std::string method, uint64_t seed)
    : model_(model), thawed_(thawed), method_(std::move(method)), seed_(seed) {
  for (const Site& site : model.sites())
    if (site.copy_of < 0) sites_.push_back(site);
}

Recorder::~Recorder() = default;

std::vector<Site> Recorder::sites(std::string_view glob) const {
  return select_sites(model_.sites(), glob);
}
Tensor Recorder::weight(const Site& site) const {
  return model_.slot(site).dense();
}
Tensor Recorder::bias(const Site& site) const {
  return model_.slot(site).bias;
}
bool Recorder::fresh(const Site& site) const {
  return site.storage >= 0 && model_.slot(site).fresh;
}

void Recorder::own(Owned owned) {
  for (const Owned& other : owned_)
    if (other.name == owned.name)
      fail(ErrorCode::Internal, "{}: the tensor {} is declared twice", method_, owned.name);
  owned_.push_back(std::move(owned));
}

Tensor Recorder::parameter(const Site& site, std::string_view name, const Tensor& init,
                           Learn learn) {
  const Tensor value = as_leaf(init.detach().to(model_.numerics().master()).clone().contiguous());
  own({site.name + "/" + std::string(name), Owned::Role::Parameter, site.id, value,
       std::move(learn), true});
  return value;
}

Tensor Recorder::buffer(const Site& site, std::string_view name, const Tensor& init) {
  const Tensor value = init.detach().clone().contiguous();
  own({site.name + "/" + std::string(name), Owned::Role::Buffer, site.id, value, {}, false});
  return value;
}

Tensor Recorder::state(const Site& site, std::string_view name, const Tensor& init) {
  const Tensor value = init.detach().clone().contiguous();
  own({site.name + "/" + std::string(name), Owned::Role::State, site.id, value, {}, false});
  return value;
}

/// Sites near this one that would take the edit: those of its own block first.
std::string Recorder::sites_that_admit(const Site& site, const Edit& edit) const {
  std::vector<std::string> near, far;
  const std::string block = block_of(site);
  for (const Site& other : model_.sites())
    if (!other.hidden && admits(other, edit))
      (starts_with(other.name, block) ? near : far).push_back(other.name);
  if (near.empty()) near = std::move(far);
  if (near.size() > 6) near.resize(6);
  return near.empty() ? "none of this model" : join(near, ", ");
}

Edit& Recorder::add(const Site& site, Edit edit) {
  if (!admits(site, edit))
    fail(ErrorCode::BadInput,
         "{}: site {} ({}) does not admit {}; sites that do: {} (docs/sites.md lists which verbs "
         "each kind of site admits)",
         method_, site.name, kind_name(site.kind), verb_name(edit), sites_that_admit(site, edit));
  if (const LowRank* low = std::get_if<LowRank>(&edit);
      low != nullptr && low->down.size(0) > std::min(site.in, site.out))
    fail(ErrorCode::BadInput,
         "{}: rank {} at {} is larger than the matrix [{}, {}]; give a rank of at most {}", method_,
         low->down.size(0), site.name, site.out, site.in, std::min(site.in, site.out));
  edits_.emplace_back(site.id, std::move(edit));
  return edits_.back().second;
}

void Recorder::scale(double factor) {
  strength_ *= factor;
  scaled_ = edits_;
  refresh();
}

void Recorder::refresh() {
  for (size_t i = 0; strength_ != 1 && i < edits_.size(); ++i)
    scaled_[i].second = *weakened(edits_[i].second, strength_);
}

std::vector<std::vector<Site>> Recorder::route(const Site& part, Route edit) {
  if (edit.experts < 1 || edit.top_k < 1 || edit.top_k > edit.experts)
    fail(ErrorCode::BadInput,
         "{}: a mixture of {} experts of which {} act at {}; give at least one expert, and as many "
         "that act as there are at most",
         method_, edit.experts, edit.top_k, part.name);
  const int experts = edit.experts;
  add(part, std::move(edit));
  std::vector<std::vector<Site>> result;
  for (const std::vector<int>& ids : model_.add_experts(part, experts)) {
    result.emplace_back();
    for (const int id : ids) {
      model_.hide(id, false);
      result.back().push_back(model_.sites()[static_cast<size_t>(id)]);
    }
  }
  return result;
}

/// A copy in a mixture trains its own tensor, whatever tensor it began from; another site when that
/// is asked for and makes a difference.
bool Recorder::trains_alone(const Site& site, const Learn& learn) const {
  if (site.copy_of >= 0 || !learn.alone) return site.copy_of >= 0;
  for (const Site& other : sites_)
    if (other.storage == site.storage && other.id != site.id) return true;
  return false;
}

/// A large table that is looked up alone: a step changes the rows that its batch has.
bool Recorder::changes_by_rows(const Site& site, const Tensor& base) const {
  if (site.weight != WeightKind::Table || base.numel() < kLargeTable ||
      base.scalar_type() != model_.numerics().master())
    return false;
  for (const Site& other : sites_)
    if (other.storage == site.storage && other.weight != WeightKind::Table) return false;
  return true;
}

void Recorder::thaw_part(const Site& site, const Learn& learn, Part part, const Tensor& base) {
  const bool alone = trains_alone(site, learn);
  Share& share = thawed_[{alone ? -1 - site.id : site.storage, part}];
  Tensor& value = share.value;
  if (!value.defined()) {
    share.base = base;
    const WeightSlot& slot = model_.slot(site);
    if (changes_by_rows(site, base)) value = copied_when_written(base);
    if (!value.defined())
      value = base.detach().to(model_.numerics().master(), false, /*copy=*/true);
    value = as_leaf(value);
    if (slot.copies.weight_is_mapped() && base.is_same(slot.weight))
      release_pages(base.data_ptr(),
                    base.nbytes());  // the model computes with the copy from now on
  }
  const std::string name = site.name + (part == Part::Weight ? "/weight" : "/bias");
  for (const Owned& other : owned_)
    if (other.value.is_same(value)) return;  // a tied site: one tensor
  const bool decays =
      part == Part::Weight && site.weight != WeightKind::Norm && site.weight != WeightKind::Vector;
  own({name, Owned::Role::Thawed, site.id, value, learn, decays, share.base, alone});
}

void Recorder::thaw(const Site& site, Learn learn, Part part) {
  if (site.kind != SiteKind::Weight)
    fail(ErrorCode::BadInput, "{}: site {} ({}) holds no tensor that could be trained", method_,
         site.name, kind_name(site.kind));
  const WeightSlot& slot = model_.slot(site);
  if (part != Part::Bias && !learn.alone) thawed_sites_.insert(site.id);
  if (part != Part::Bias && slot.codes != nullptr)
    fail(ErrorCode::Unsupported,
         "{}: the weight of {} is kept as {} codes, which cannot be trained. Train another method "
         "on top of it (lora, adapter, bias, ...), leave this site out of `sites`, or give "
         "`storage: full`",
         method_, site.name, storage_name(slot));
  if (part != Part::Bias && slot.weight.defined())
    thaw_part(site, learn, Part::Weight, slot.weight);
  if (part != Part::Weight && slot.bias.defined()) thaw_part(site, learn, Part::Bias, slot.bias);
}

Tensor Recorder::normal(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                        double deviation) const {
  const uint64_t key = Stream64(seed_, "init").with(method_).with(site.name).with(name).key();
  return normal_tensor(key, shape, deviation, model_.numerics().master());
}

Tensor Recorder::uniform(const Site& site, std::string_view name, const std::vector<int64_t>& shape,
                         double bound) const {
  const Stream64 stream = Stream64(seed_, "init").with(method_).with(site.name).with(name);
  return drawn(shape, model_.numerics().master(),
               [&](uint64_t i) { return (2 * stream.uniform(i) - 1) * bound; });
}

std::vector<int32_t> Recorder::encode(const std::string& text) const {
  if (!model_.encode_text)
    fail(
        ErrorCode::Unsupported,
        "{}: reading the text \"{}\" needs the model's tokenizer, and this model came without one; "
        "begin from other values",
        method_, text);
  return model_.encode_text(text);
}

uint64_t Recorder::stream(std::string_view name) const {
  return Stream64(seed_, "method").with(method_).with(name).key();
}

Tensor Recorder::zeros(const std::vector<int64_t>& shape) const {
  return at::zeros(shape, model_.numerics().master());
}
Tensor Recorder::ones(const std::vector<int64_t>& shape) const {
  return at::ones(shape, model_.numerics().master());
}

}  // namespace attune
