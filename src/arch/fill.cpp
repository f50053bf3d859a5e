#include "arch/fill.h"

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "core/attachment.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// Every spelling under which a tensor may be stored: with and without the family's prefixes, old
/// LayerNorm names.
void add_spellings(std::vector<std::string>& names, const std::string& name,
                   const std::vector<std::string>& prefixes) {
  const size_t first = names.size();
  names.push_back(name);
  std::string bare = name;
  for (const std::string& prefix : prefixes)
    if (starts_with(name, prefix)) bare = name.substr(prefix.size());
  if (bare != name) names.push_back(bare);
  for (const std::string& prefix : prefixes)
    if (prefix + bare != name) names.push_back(prefix + bare);
  const size_t plain = names.size();
  for (size_t i = first; i < plain; ++i) {
    if (ends_with(names[i], "LayerNorm.weight"))
      names.push_back(names[i].substr(0, names[i].size() - 6) + "gamma");
    if (ends_with(names[i], "LayerNorm.bias"))
      names.push_back(names[i].substr(0, names[i].size() - 4) + "beta");
  }
}

std::vector<std::string> spellings(const NameRule& rule, bool bias,
                                   const std::vector<std::string>& prefixes) {
  std::vector<std::string> names;
  add_spellings(names, bias ? rule.bias : rule.weight, prefixes);
  for (const std::pair<std::string, std::string>& other : rule.others)
    add_spellings(names, bias ? other.second : other.first, prefixes);
  return names;
}

std::vector<int64_t> weight_shape(const Site& site) {
  if (site.weight == WeightKind::Projection) return {site.out, site.in};
  if (site.weight == WeightKind::Table) return {site.in, site.out};
  return {site.out};
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return format("[{}]", fmt::join(shape, ", "));
}

/// A smaller table in half precision is converted: more than its rows may be asked for.
constexpr int64_t kHalfTable = 1 << 16;

class Filler {
 public:
  Filler(Transformer& model, const Checkpoint* checkpoint, const std::string& where, uint64_t seed)
      : model_(model), checkpoint_(checkpoint), where_(where), seed_(seed) {
    if (checkpoint != nullptr && file_exists(where + "/attune.safetensors"))
      head_file_ = std::make_unique<SafetensorsFile>(where + "/attune.safetensors");
  }

  LoadReport fill() {
    for (const NameRule& rule : model_.spec().names) {
      const Site& site = model_.site(rule.site);
      WeightSlot& slot = model_.slot(site);
      slot.module = ends_with(rule.weight, ".weight")
                        ? rule.weight.substr(0, rule.weight.size() - 7)
                        : rule.weight;
      slot.weight_name = rule.weight;
      slot.bias_name = rule.bias;
      slot.stored = rule.shape;
      slot.weight = tensor(site, slot, rule, false);
      slot.copies.weight_is_mapped(!slot.fresh && mapped_);
      if (!rule.bias.empty()) slot.bias = tensor(site, slot, rule, true);
    }
    check_complete();
    know_size();
    report_.pool = model_.spec().head.pool_name;
    if (checkpoint_ != nullptr) find_unexpected();
    return std::move(report_);
  }

 private:
  Tensor tensor(const Site& site, WeightSlot& slot, const NameRule& rule, bool bias) {
    const std::vector<int64_t> shape = bias ? std::vector<int64_t>{site.out} : weight_shape(site);
    if (checkpoint_ == nullptr) {
      slot.fresh = true;
      return draw(site, rule, shape, bias);
    }
    std::string found;
    for (const std::string& spelling : spellings(rule, bias, model_.spec().prefixes)) {
      if (!checkpoint_->has(spelling)) continue;
      used_.insert(spelling);
      if (found.empty())
        found = spelling;
      else
        check_equal(found, spelling);
    }
    if (found.empty()) return absent(site, slot, rule, shape, bias);
    return stored(site, slot, rule, found, shape, bias);
  }

  /// Tells the weights of a small model so.
  void know_size() {
    int64_t numbers = 0;
    for (const Site& site : model_.sites())
      if (site.weight == WeightKind::Projection && site.layer >= 0) numbers += site.in * site.out;
    if (2 * numbers > WeightCopies::kSmallModel) return;
    for (size_t i = 0; i < model_.slots(); ++i) model_.slot_at(i).copies.model_is_small();
  }

  Tensor stored(const Site& site, WeightSlot& slot, const NameRule& rule, const std::string& name,
                const std::vector<int64_t>& shape, bool bias) {
    const Tensor value = checkpoint_->tensor(name);
    const bool shaped = !bias && !rule.shape.empty();
    const std::vector<int64_t> expected = shaped ? rule.shape : shape;
    const bool others = site.name == "head.proj" && model_.spec().head.anew;
    if (value.sizes().vec() == expected && !others) {
      (bias ? slot.bias_name : slot.weight_name) = name;
      const Tensor values = shaped ? value.reshape(shape) : value;
      if (!bias && stays_half(site, values)) {
        mapped_ = true;
        return values;
      }
      return converted(values, name);
    }
    if (site.name == "head.proj") {
      report_.fresh.push_back(
          others ? format("{} (the checkpoint's is for other labels)", name)
                 : format("{} (the checkpoint's has shape {}, this task needs {})", name,
                          shape_text(value.sizes().vec()), shape_text(shape)));
      slot.fresh = true;
      return draw(site, rule, shape, bias);
    }
    fail(ErrorCode::Corrupt,
         "loading {}: tensor {} has shape {}, but config.json makes it {}; the two files do not "
         "belong together",
         where_, name, shape_text(value.sizes().vec()), shape_text(expected));
  }

  /// Neither under this nor another name: a head of ours, a new head, or an error.
  Tensor absent(const Site& site, WeightSlot& slot, const NameRule& rule,
                const std::vector<int64_t>& shape, bool bias) {
    const std::string& name = bias ? rule.bias : rule.weight;
    if (head_file_ != nullptr && head_file_->has(name) &&
        !(site.name == "head.proj" && model_.spec().head.anew) &&
        head_file_->tensor(name).sizes().vec() == shape)
      return converted(head_file_->tensor(name), name);
    if (!starts_with(site.name, "head."))
      fail(ErrorCode::Corrupt,
           "loading {}: tensor {} is missing, which config.json asks for ({} layers, hidden size "
           "{})",
           where_, name, model_.spec().first().layers, model_.spec().first().hidden);
    report_.fresh.push_back(name);
    slot.fresh = true;
    return draw(site, rule, shape, bias);
  }

  /// Two names of what must be one tensor.
  void check_equal(const std::string& a, const std::string& b) const {
    if (!at::equal(checkpoint_->tensor(a), checkpoint_->tensor(b)))
      fail(
          ErrorCode::Unsupported,
          "loading {}: tensors {} and {} stand for the same tensor of this architecture, but their "
          "values differ; such a model is not supported",
          where_, a, b);
  }

  /// Products in bf16 are made from packed copies, rows of a table are read as they are needed: of
  /// neither a model needs other values than the file's.
  bool stays_half(const Site& site, const Tensor& stored) const {
    if (model_.numerics().compute != kernels::DType::BF16) return false;
    if (stored.scalar_type() != at::kBFloat16 && stored.scalar_type() != at::kHalf) return false;
    return site.weight == WeightKind::Projection ||
           (site.weight == WeightKind::Table && stored.numel() >= kHalfTable);
  }

  Tensor converted(const Tensor& stored, const std::string& name) {
    if (!stored.is_floating_point())
      fail(ErrorCode::Corrupt,
           "loading {}: tensor {} has a dtype that is not floating point; weights are expected",
           where_, name);
    const Tensor result = dense_as(stored, model_.numerics().master());
    mapped_ = result.is_same(stored);
    return result;
  }

  Tensor draw(const Site& site, const NameRule& rule, const std::vector<int64_t>& shape,
              bool bias) const {
    const at::ScalarType type = model_.numerics().master();
    const bool vector = site.weight == WeightKind::Vector && rule.deviation == 0;
    if (bias || vector) return at::zeros(shape, type);
    if (site.weight == WeightKind::Norm) return at::ones(shape, type);
    const uint64_t key = Stream64(seed_, "init").with("model").with(rule.weight).key();
    const double deviation = rule.deviation > 0 ? rule.deviation : model_.spec().init_deviation;
    return normal_tensor(key, shape, deviation, type);
  }

  void check_complete() const {
    for (const Site& site : model_.sites())
      if (site.kind == SiteKind::Weight && !model_.slot(site).weight.defined())
        fail(ErrorCode::Internal, "no checkpoint name leads to site {}", site.name);
  }

  void find_unexpected() {
    for (const std::string& name : checkpoint_->names()) {
      bool known = used_.count(name) > 0;
      for (const std::string& glob : model_.spec().ignored) known = known || glob_match(glob, name);
      if (!known) report_.unexpected.push_back(name);
    }
  }

  bool mapped_ = false;  // the last tensor read stands in its file
  Transformer& model_;
  const Checkpoint* checkpoint_;
  std::unique_ptr<SafetensorsFile> head_file_;  // a head that transformers' classes cannot hold
  std::string where_;
  uint64_t seed_;
  LoadReport report_;
  std::set<std::string> used_;
};

}  // namespace

LoadReport fill(Transformer& model, const Checkpoint* checkpoint, const std::string& where,
                uint64_t seed) {
  return Filler(model, checkpoint, where, seed).fill();
}

std::string stored_name(const NameRule& rule, const Checkpoint& checkpoint,
                        const std::vector<std::string>& prefixes) {
  for (const std::string& name : spellings(rule, false, prefixes))
    if (checkpoint.has(name)) return name;
  return "";
}

namespace {

/// Of the two names that the bias of a tied output may have, the output's own goes first.
void settle_output_bias(ModelSpec& spec, const Checkpoint& checkpoint) {
  NameRule own;
  own.weight = spec.output.bias;
  if (own.weight.empty() || stored_name(own, checkpoint, spec.prefixes).empty()) return;
  for (NameRule& rule : spec.names)
    if (rule.site == "head.bias") rule.weight = own.weight;
}

}  // namespace

void settle_output(ModelSpec& spec, const Checkpoint& checkpoint) {
  if (spec.output.weight.empty() || !spec.words()) return;
  settle_output_bias(spec, checkpoint);
  const std::string own = stored_name(spec.output, checkpoint, spec.prefixes);
  if (own.empty()) {
    spec.head.tied = spec.head.tied || spec.head.tied_when_absent;
    return;
  }
  if (!spec.head.tied) return;
  NameRule& table = spec.names.front();
  const std::string tokens = stored_name(table, checkpoint, spec.prefixes);
  if (tokens.empty()) {
    table.others.emplace_back(own, "");  // the one tensor of the two that was saved
  } else if (at::equal(checkpoint.tensor(own), checkpoint.tensor(tokens))) {
    spec.ignored.push_back(own);
  } else {
    spec.head.tied = false;
  }
}

}  // namespace attune
