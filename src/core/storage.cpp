#include "core/storage.h"

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

Json StorageOptions::to_json() const {
  if (kind == "full") return kind;
  Json options = Json::object();
  if (kind == "nf4" && !double_quant) options["double_quant"] = false;
  if (sites != Names{"*"}) options["sites"] = sites;
  return options.empty() ? Json(kind) : Json{{kind, options}};
}

StorageOptions StorageOptions::from_json(const Json& json) {
  StorageOptions options;
  if (json.is_string()) {
    options.kind = json.get<std::string>();
    return options;
  }
  options.kind = json.begin().key();
  const Json& given = json.begin().value();
  options.double_quant = given.value("double_quant", true);
  options.sites = given.value("sites", options.sites);
  return options;
}

const char* storage_name(const WeightSlot& slot) {
  if (slot.codes == nullptr) return "full";
  return slot.codes->options().kind == kernels::CodeKind::Int8 ? "int8" : "nf4";
}

namespace {

bool in_a_block(const Site& site) {
  return site.kind == SiteKind::Weight && site.weight == WeightKind::Projection &&
         site.layer >= 0 && site.copy_of < 0;
}

bool chosen(const Site& site, const Names& globs) {
  for (const std::string& glob : globs)
    if (glob_match(glob, site.name)) return true;
  return false;
}

}  // namespace

StorageReport store(Model& model, const StorageOptions& options) {
  StorageReport report;
  if (options.kind == "full") return report;
  kernels::CodeOptions codes;
  codes.kind = options.kind == "int8" ? kernels::CodeKind::Int8 : kernels::CodeKind::Nf4;
  codes.double_scales = options.double_quant;
  for (const Site& site : model.sites()) {
    if (!in_a_block(site) || !chosen(site, options.sites)) continue;
    WeightSlot& slot = model.slot(site);
    if (slot.codes != nullptr) continue;
    const Tensor stored = slot.weight, values = stored.to(at::kFloat).contiguous();
    const bool mapped = slot.copies.weight_is_mapped();
    report.weights += values.numel();
    report.before += values.numel() * static_cast<int64_t>(at::elementSize(slot.master));
    slot.replace(Tensor(), slot.bias,
                 std::make_shared<const kernels::QuantizedMatrix>(
                     pointer<const float>(values), values.size(0), values.size(1), codes));
    report.bytes += slot.codes->bytes();
    // The pages of the checkpoint that only making the codes brought in.
    if (mapped) release_pages(stored.data_ptr(), static_cast<size_t>(stored.nbytes()));
  }
  if (report.weights == 0)
    fail(ErrorCode::BadInput,
         "storage.{}.sites: {} match no projection inside a block; `attune inspect MODEL` lists "
         "the sites",
         options.kind, join(options.sites, ", "));
  return report;
}

}  // namespace attune
