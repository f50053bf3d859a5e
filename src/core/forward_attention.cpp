// Key-value, scores and heads sites: prefixes, and the reference form of attention where a function
// looks inside.
#include <limits>

#include "base/error.h"
#include "core/forward.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

size_t Forward::lane_of(int64_t sequence) const {
  for (size_t lane = 0; lanes_.size() > 1 && lane < lanes_.size(); ++lane)
    for (const int64_t b : lanes_[lane].sequences)
      if (b == sequence) return lane;
  return 0;
}

namespace {
bool adds_nothing(const Edit& edit) {
  const Extend* extend = std::get_if<Extend>(&edit);
  return extend != nullptr && (!extend->keys.defined() || extend->keys.size(-2) == 0);
}
}  // namespace

KeyValues Forward::extend_keys(const Extend& extend, const SitePlan::Entry& entry, size_t lane,
                               const KeyValues& kv) {
  Tensor keys = cast(extend.keys, kv.k.scalar_type());
  Tensor values = cast(extend.values, kv.v.scalar_type());
  if (extend.gate) {
    // A prefix is gated by what asks: the rows are the queries'.
    const bool own = kv.k.size(0) == state_->rows.rows();
    const View view = view_of(own ? lane_rows(kv.k, parts_[lane]) : Tensor(), parts_[lane].rows,
                              Tensor(), entry, lane);
    const Tensor by = cast(extend.gate(view), keys.scalar_type()).reshape({-1, 1, 1});
    keys = (keys.dim() == 2 ? keys.unsqueeze(0) : keys) * by;
    values = (values.dim() == 2 ? values.unsqueeze(0) : values) * by;
  }
  const Extended next =
      extend_index(kv.rows, keys.size(-2), keys.dim() == 3, lanes_[lane].sequences);
  return {at::cat({kv.k, keys.reshape({-1, keys.size(-1)})}).index_select(0, next.order),
          at::cat({kv.v, values.reshape({-1, values.size(-1)})}).index_select(0, next.order),
          next.rows};
}

KeyValues Forward::key_values(int id, const Tensor& k, const Tensor& v, const RowIndex& memory) {
  KeyValues kv{k, v, memory};
  if (id < 0) return kv;
  id = resolve(id);
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  for (size_t lane = 0; lane < lanes_.size(); ++lane) {
    const SitePlan* plan = lanes_[lane].plan->at(id);
    if (plan == nullptr) continue;
    for (const SitePlan::Entry& entry : plan->edits) {
      if (const Extend* extend = std::get_if<Extend>(entry.edit)) {
        if (!adds_nothing(*entry.edit)) kv = extend_keys(*extend, entry, lane, kv);
        continue;
      }
      if (lanes_.size() > 1)
        fail(ErrorCode::Unsupported,
             "{}: a function at keys and values cannot run beside other adapter sets in one batch; "
             "run its sequences on their own",
             site.name);
      const int64_t width = kv.k.size(1);
      const Tensor both = run_flow(site, entry, at::cat({kv.k, kv.v}, 1), kv.rows, Tensor(), 0);
      kv.k = both.narrow(1, 0, width).contiguous();
      kv.v = both.narrow(1, width, width).contiguous();
    }
  }
  return kv;
}

bool Forward::keys_touched(int id_in) const {
  if (!touched(id_in)) return false;
  const int id = resolve(id_in);
  if (wanted(id)) return true;
  for (const Lane& lane : lanes_) {
    const SitePlan* plan = lane.plan->at(id);
    if (plan == nullptr) continue;
    if (plan->read) return true;
    for (const SitePlan::Entry& entry : plan->edits)
      if (!adds_nothing(*entry.edit)) return true;
  }
  return false;
}

Tensor Forward::attend(const AttentionSites& sites, const Tensor& q, const Tensor& k,
                       const Tensor& v, const RowIndex& memory, AttentionArgs args) {
  const KeyValues kv = key_values(sites.kv, k, v, memory);
  const bool inside = touched(sites.scores) || touched(sites.probs);
  Tensor heads = inside ? reference_attention(sites, q, kv, args)
                        : attention(q, kv.k, kv.v, rows(), kv.rows, args);
  return edited_heads(sites.heads, heads, args);
}

Tensor Forward::edited_heads(int site, const Tensor& heads, const AttentionArgs& args) {
  if (!touched(site)) return heads;
  const int64_t count = heads.size(0);
  return at(site, heads.view({count, args.heads, args.head_size})).reshape({count, -1});
}

Tensor Forward::attend_input(int heads, const Tensor& q, const Tensor& x, const Affine& keys,
                             const Affine& values, const RowIndex& memory,
                             const AttentionArgs& args) {
  // Dropped probabilities do not sum to one: a column of ones has their sum for the values' bias.
  // The keys' bias moves all scores of a query alike.
  const bool sums = args.drop.p > 0 && values.bias.defined();
  Tensor input = x, to_keys = keys.weight, to_values = values.weight;
  if (sums) {
    input = at::cat({x, at::ones({x.size(0), 1}, x.options())}, 1);
    to_keys = at::constant_pad_nd(to_keys, {0, 1});
    to_values = at::cat({to_values, values.bias.reshape({-1, 1})}, 1);
  }
  const int64_t count = q.size(0), width = input.size(1);
  // Rows [count, heads * n] as [heads, count, n] in the master type, in which these small products
  // are; and back.
  const auto split = [&](const Tensor& rows) {
    return cast(rows, master()).reshape({count, args.heads, -1}).transpose(0, 1);
  };
  const auto joined = [&](const Tensor& parts) { return parts.transpose(0, 1).contiguous(); };
  const auto by_head = [&](const Tensor& weight) {
    return weight.reshape({args.heads, args.head_size, width});
  };
  const Tensor asked = cast(joined(attune::matmul(split(q), by_head(to_keys))), x.scalar_type());

  // The heads of a query as rows of one head.
  AttentionArgs one = args;
  one.heads = one.kv_heads = 1;
  one.heads_in_rows = args.heads;
  one.head_size = width;
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < rows().sequences(); ++b) lengths.push_back(rows().length(b) * args.heads);
  const Tensor met = attention(asked.reshape({-1, width}), input, input,
                               RowIndex::from_lengths(lengths), memory, one);

  Tensor y = joined(attune::matmul(split(met), by_head(to_values), false, true));
  y = y.reshape({count, -1});
  if (values.bias.defined() && !sums) y = y + values.bias;
  if (wants_gradient(keys.bias)) y = y + keys.bias.sum() * 0;  // its gradient is zero, not missing
  return edited_heads(heads, cast(y, x.scalar_type()), args);
}

Tensor Forward::run_scores(int id_in, int64_t sequence, Tensor x, const RowIndex& rows) {
  if (id_in < 0) return x;
  const int id = resolve(id_in);
  const SitePlan* plan = lanes_[lane_of(sequence)].plan->at(id);
  if (plan == nullptr) return x;
  const Site& site = model_.sites()[static_cast<size_t>(id)];
  for (const SitePlan::Entry& entry : plan->edits)
    x = run_flow(site, entry, x, rows, Tensor(), lane_of(sequence));
  return x;
}

namespace {

/// Position of every key minus that of every query of one sequence, [Lq, Lk]: the last query stands
/// beside the last key. `places` (int32 [Lq] or undefined) are the queries' own positions, before
/// which the first keys count back.
Tensor distances(int64_t queries, int64_t keys, const Tensor& places) {
  const at::TensorOptions whole = at::TensorOptions().dtype(at::kLong);
  const int64_t shift = keys - queries;
  if (!places.defined())
    return at::arange(keys, whole).unsqueeze(0) - at::arange(queries, whole).unsqueeze(1) - shift;
  const Tensor own = places.to(at::kLong);
  const Tensor before = own.narrow(0, 0, 1) - at::arange(shift, whole).flip(0) - 1;
  return at::cat({before, own}).unsqueeze(0) - own.unsqueeze(1);
}

/// What the fused kernel adds to the scores of one sequence: [heads, Lq, Lk] or undefined.
Tensor added_scores(const AttentionArgs& args, int64_t queries, int64_t keys, const Tensor& places,
                    const Tensor& like) {
  const bool bounded = args.causal || args.window > 0;
  if (!bounded && !args.bias.defined()) return Tensor();
  Tensor sum = at::zeros({args.heads, queries, keys}, like.options());
  if (args.bias.defined()) {
    const int64_t reach = (args.bias.size(1) - 1) / 2;
    const Tensor index =
        (distances(queries, keys, places).clamp(-reach, reach) + reach).reshape({-1});
    sum = sum + args.bias.index_select(1, index).reshape({args.heads, queries, keys});
  }
  if (!bounded) return sum;
  const Tensor distance = distances(queries, keys, Tensor());
  Tensor hidden = at::zeros_like(distance, at::kBool);
  if (args.causal) hidden = hidden.logical_or(distance > 0);
  if (args.window > 0) hidden = hidden.logical_or(distance.abs() >= args.window);
  return sum.masked_fill(hidden.unsqueeze(0), -std::numeric_limits<double>::infinity());
}

/// Columns of head h of the rows [begin, begin + count), in the master type.
Tensor head_rows(const Tensor& x, int64_t begin, int64_t count, int64_t head, int64_t size) {
  return x.narrow(0, begin, count).narrow(1, head * size, size);
}

}  // namespace

/// Differs: dropout on probabilities draws other bits here than in the fused kernel; both depend
/// only on the query's key, its head and the key's position, so packed = one by one holds in both.
Tensor Forward::reference_attention(const AttentionSites& sites, const Tensor& q_in,
                                    const KeyValues& kv, const AttentionArgs& args) {
  const Tensor q = cast(q_in, master()), k = cast(kv.k, master()), v = cast(kv.v, master());
  const int64_t size = args.head_size, share = args.heads / args.kv_heads;
  std::vector<Tensor> results;
  for (int64_t b = 0; b < rows().sequences(); ++b) {
    const int64_t queries = rows().length(b), keys = kv.rows.length(b);
    if (queries == 0) continue;
    const RowIndex own = RowIndex::from_lengths({queries});
    std::vector<Tensor> scores, heads;
    for (int64_t h = 0; h < args.heads; ++h)
      scores.push_back(attune::matmul(head_rows(q, rows().begin(b), queries, h, size),
                                      head_rows(k, kv.rows.begin(b), keys, h / share, size), false,
                                      true));
    Tensor x = at::stack(scores) * args.scale;
    const Tensor places =
        args.positions.defined() ? args.positions.narrow(0, rows().begin(b), queries) : Tensor();
    const Tensor more = added_scores(args, queries, keys, places, x);
    if (more.defined()) x = x + more;
    x = run_scores(sites.scores, b, x, own).softmax(-1);
    x = run_scores(sites.probs, b, x, own);
    for (int64_t h = 0; h < args.heads; ++h) {
      DropSite drop = args.drop;
      drop.site += static_cast<uint32_t>(h + 1) * 0x9E3779B9U;
      if (drop.row_keys.defined())
        drop.row_keys = drop.row_keys.narrow(0, rows().begin(b), queries);
      heads.push_back(attune::matmul(dropout(x.select(0, h).contiguous(), drop),
                                     head_rows(v, kv.rows.begin(b), keys, h / share, size)));
    }
    results.push_back(at::cat(heads, 1));
  }
  return cast(at::cat(results), q_in.scalar_type());
}

}  // namespace attune
