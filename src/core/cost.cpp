// What an adaptation costs beside the bare model, from its plan.
#include "core/adaptation_state.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

/// Rows and sequences that pass a site in one batch.
struct Shape {
  int64_t rows = 0, sequences = 0;
};

Shape shape_at(const Batch& batch, const Site& site) {
  const std::string stack = site.name.substr(0, site.name.find('.'));
  std::map<std::string, Stream>::const_iterator found = batch.streams.find(stack);
  if (found == batch.streams.end()) found = batch.streams.begin();
  if (found == batch.streams.end()) return {};
  const RowIndex& rows = found->second.rows;
  const int64_t sequences = rows.sequences();
  if (site.layer < 0 && stack == "head") return {sequences, sequences};
  return {rows.rows(), sequences};
}

/// Adds what one edit does to `cost`. `element`: bytes of a value in the compute type; `owned`:
/// numbers that the edit's tuner owns at the site.
class EditCost {
 public:
  EditCost(const Model& model, const Site& site, const Shape& shape, int64_t element, int64_t owned,
           Cost& cost)
      : model_(model), site_(site), shape_(shape), element_(element), owned_(owned), cost_(cost) {}

  void operator()(const LowRank& low) const {
    const int64_t rank = low.down.size(0), sides = site_.in + site_.out;
    add(2 * shape_.rows * rank * sides, 4 * shape_.rows * rank * sides, shape_.rows * rank);
    if (low.dropout > 0) cost_.saved_bytes += shape_.rows * site_.in * element_;
  }
  void operator()(const Scale& scale) const {
    const int64_t width =
        (scale.in.defined() ? site_.in : 0) + (scale.out.defined() ? site_.out : 0);
    add(shape_.rows * width, 2 * shape_.rows * width, shape_.rows * width);
  }
  void operator()(const Shift&) const { add(shape_.rows * site_.out, shape_.rows * site_.out, 0); }
  void operator()(const Reweight&) const {
    const int64_t size = site_.in * site_.out;
    add(2 * size, 4 * size + 2 * shape_.rows * size, size + shape_.rows * site_.in);
  }
  void operator()(const Apply&) const { function(); }
  void operator()(const Observe&) const { function(); }
  void operator()(const Keep&) const { function(); }
  void operator()(const Route& route) const {
    function();
    const int64_t part = weights_below(site_.name + ".");
    const int64_t more = 2 * shape_.rows * part * (route.top_k - 1);
    add(more, more, shape_.rows * site_.out * route.top_k);
  }
  void operator()(const Extend& extend) const {
    if (extend.keys.defined()) {
      const int64_t work = 4 * shape_.rows * extend.keys.size(-2) * site_.in;
      add(work, 2 * work, 0);
    }
    if (!extend.rows.defined()) return;
    const int64_t rows = extend.rows.size(-2) * shape_.sequences;
    const std::string stack = site_.name.substr(0, site_.name.find('.') + 1);
    const int64_t work = 2 * rows * weights_below(stack);
    add(work, work, rows * site_.in * 12);
  }

 private:
  void add(int64_t forward, int64_t backward, int64_t saved) const {
    cost_.forward_flops += forward;
    cost_.backward_flops += backward;
    cost_.saved_bytes += saved * element_;
  }
  void function() const {
    add(2 * shape_.rows * owned_, 4 * shape_.rows * owned_, 2 * shape_.rows * site_.out);
  }
  int64_t weights_below(const std::string& prefix) const {
    int64_t sum = 0;
    for (const Site& site : model_.sites())
      if (site.weight == WeightKind::Projection && site.copy_of < 0 &&
          site.name.starts_with(prefix))
        sum += site.in * site.out;
    return sum;
  }

  const Model& model_;
  const Site& site_;
  const Shape shape_;
  const int64_t element_, owned_;
  Cost& cost_;
};

}  // namespace

Cost Adaptation::cost(const Batch& batch) const {
  Cost total = cost();
  const Model& model = state_->model;
  const int64_t element = model.numerics().compute == kernels::DType::BF16  ? 2
                          : model.numerics().compute == kernels::DType::F64 ? 8
                                                                            : 4;
  for (const AdapterSet& set : state_->sets) {
    for (const Attached& attached : set.tuners) {
      std::map<int, int64_t> owned_at;
      for (const Owned& owned : attached.recorder->owned()) {
        owned_at[owned.site] += owned.value.numel();
        const Site* site = state_->site_of(owned);
        if (owned.role != Owned::Role::Thawed || owned.value.dim() != 2 || site == nullptr ||
            site->weight != WeightKind::Projection)
          continue;
        const Shape shape = shape_at(batch, *site);
        total.backward_flops += 2 * shape.rows * owned.value.numel();
        total.saved_bytes += shape.rows * site->in * element;
      }
      for (const std::pair<int, Edit>& entry : attached.recorder->edits()) {
        const Site& site = model.sites()[static_cast<size_t>(entry.first)];
        std::visit(
            EditCost(model, site, shape_at(batch, site), element, owned_at[entry.first], total),
            entry.second);
      }
    }
  }
  return total;
}

}  // namespace attune
