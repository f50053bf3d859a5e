#include "core/row_state.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

uint64_t key_of_example(const Batch& batch, int64_t sequence) {
  const std::map<std::string, Tensor>::const_iterator field = batch.fields.find("example");
  const int64_t example =
      field != batch.fields.end() ? pointer<const int64_t>(field->second)[sequence] : sequence;
  const uint64_t base =
      mix(mix(batch.pass.seed, name_key("dropout")), static_cast<uint64_t>(batch.pass.step));
  return mix(base, static_cast<uint64_t>(example));
}

}  // namespace

Tensor keys_of_rows(const Batch& batch, const RowIndex& rows) {
  Tensor keys = at::empty({rows.rows()}, at::kLong);
  uint64_t* out = pointer<uint64_t>(keys);
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    const uint64_t example = key_of_example(batch, b);
    for (int64_t r = rows.begin(b); r < rows.end(b); ++r)
      out[r] = mix(example, static_cast<uint64_t>(r - rows.begin(b)));
  }
  return keys;
}

uint64_t key_of_added(const Batch& batch, int64_t sequence, int64_t p) {
  return mix(mix(key_of_example(batch, sequence), name_key("added")), static_cast<uint64_t>(p));
}

RowState RowState::begin(const Batch& batch, const RowIndex& rows) {
  RowState state;
  state.rows = state.original = rows;
  if (batch.pass.training) state.keys = keys_of_rows(batch, rows);
  return state;
}

Tensor RowState::counted() const {
  Tensor result = at::empty({rows.rows()}, at::kInt);
  int32_t* out = pointer<int32_t>(result);
  for (int64_t b = 0; b < rows.sequences(); ++b) {
    const int64_t first = start.empty() ? 0 : start[static_cast<size_t>(b)];
    for (int64_t r = rows.begin(b); r < rows.end(b); ++r)
      out[r] = static_cast<int32_t>(r - rows.begin(b) + first);
  }
  return result;
}

Extended extend_index(const RowIndex& rows, int64_t added, bool by_sequence,
                      const std::vector<int64_t>& which) {
  const int64_t sequences = rows.sequences(), old_rows = rows.rows();
  std::vector<bool> gets(static_cast<size_t>(sequences), which.empty());
  for (const int64_t b : which) gets[static_cast<size_t>(b)] = true;
  std::vector<int64_t> lengths, order;
  std::vector<uint8_t> is_new;
  int64_t taken = 0;  // sequences that got rows so far
  for (int64_t b = 0; b < sequences; ++b) {
    const int64_t more = gets[static_cast<size_t>(b)] ? added : 0;
    lengths.push_back(rows.length(b) + more);
    for (int64_t p = 0; p < more; ++p) {
      order.push_back(old_rows + (by_sequence ? taken * added : 0) + p);
      is_new.push_back(1);
    }
    for (int64_t r = rows.begin(b); r < rows.end(b); ++r) {
      order.push_back(r);
      is_new.push_back(0);
    }
    if (more > 0) ++taken;
  }
  Extended result;
  result.rows = RowIndex::from_lengths(lengths);
  result.order = int64_tensor(order);
  result.is_new = at::empty({static_cast<int64_t>(is_new.size())}, at::kBool);
  std::copy(is_new.begin(), is_new.end(), static_cast<uint8_t*>(result.is_new.data_ptr()));
  return result;
}

namespace {

/// Lengths of the sequences when only rows with mask != 0 stay.
std::vector<int64_t> lengths_of(const RowIndex& rows, const Tensor& mask) {
  const uint8_t* stays = static_cast<const uint8_t*>(mask.data_ptr());
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < rows.sequences(); ++b)
    lengths.push_back(std::count(stays + rows.begin(b), stays + rows.end(b), uint8_t{1}));
  return lengths;
}

Tensor counted_from_zero(int64_t count) {
  return at::arange(count, at::TensorOptions().dtype(at::kLong));
}

Tensor taken(const Tensor& x, const Tensor& index) {
  return x.defined() ? x.index_select(0, index) : x;
}

}  // namespace

void RowState::extend(const Batch& batch, const Extended& next, int64_t added, bool shift) {
  const Tensor before = origin.defined() ? origin : counted_from_zero(rows.rows());
  const Tensor old = next.order.clamp_max(rows.rows() - 1);
  const Tensor moved =
      positions.defined() || !shift ? (positions.defined() ? positions : counted()) : Tensor();
  origin = before.index_select(0, old).masked_fill(next.is_new, -1);
  if (keys.defined()) keys = keys.index_select(0, old);
  if (moved.defined()) positions = moved.index_select(0, old);
  const uint8_t* fresh = static_cast<const uint8_t*>(next.is_new.data_ptr());
  for (int64_t b = 0; b < next.rows.sequences(); ++b) {
    const bool grows = next.rows.length(b) > 0 && fresh[next.rows.begin(b)] != 0 && added > 0;
    for (int64_t r = next.rows.begin(b); grows && r < next.rows.end(b); ++r) {
      const int64_t p = r - next.rows.begin(b);
      if (p < added && keys.defined()) pointer<uint64_t>(keys)[r] = key_of_added(batch, b, p);
      if (!positions.defined()) continue;
      int32_t& position = pointer<int32_t>(positions)[r];
      position = static_cast<int32_t>(p < added ? p : position + (shift ? added : 0));
    }
  }
  rows = next.rows;
}

void RowState::move(int64_t by, const std::vector<int64_t>& which) {
  if (!positions.defined()) return;
  positions = positions.clone();  // tables made for the former ones keep theirs
  std::vector<bool> moves(static_cast<size_t>(rows.sequences()), which.empty());
  for (const int64_t b : which) moves[static_cast<size_t>(b)] = true;
  for (int64_t b = 0; b < rows.sequences(); ++b)
    for (int64_t r = rows.begin(b); moves[static_cast<size_t>(b)] && r < rows.end(b); ++r)
      pointer<int32_t>(positions)[r] += static_cast<int32_t>(by);
}

void RowState::keep(const Tensor& x, const Tensor& mask, const Tensor& kept,
                    const std::string& owner) {
  const std::vector<int64_t> lengths = lengths_of(rows, mask);
  for (size_t b = 0; b < lengths.size(); ++b)
    if (lengths[b] == 0 && rows.length(static_cast<int64_t>(b)) > 0)
      fail(ErrorCode::Internal,
           "{}: Keep must leave every sequence at least one row; sequence {} "
           "would have none",
           owner, b);
  const Tensor leaves = mask.logical_not().nonzero().reshape({-1});
  const Tensor before = origin.defined() ? origin : counted_from_zero(rows.rows());
  left.push_back({x.index_select(0, leaves), before.index_select(0, leaves)});
  choose(kept);
}

void RowState::choose(const Tensor& kept) {
  const Tensor before = origin.defined() ? origin : counted_from_zero(rows.rows());
  const Tensor place = positions.defined() ? positions : counted();
  Tensor mask = at::zeros({rows.rows()}, at::kBool);
  mask.index_fill_(0, kept, true);
  origin = before.index_select(0, kept);
  positions = place.index_select(0, kept);
  keys = taken(keys, kept);
  rows = RowIndex::from_lengths(lengths_of(rows, mask));
}

Tensor RowState::of_the_input(const Tensor& x) const {
  if (!origin.defined()) return x;
  const Tensor own = origin.ge(0).nonzero().reshape({-1});
  return own.numel() == x.size(0) ? x : x.index_select(0, own);
}

Tensor RowState::put_back(const Tensor& x) const {
  if (!origin.defined()) return x;
  std::vector<Tensor> values{x}, places{origin};
  for (const Left& entry : left) {
    values.push_back(entry.x);
    places.push_back(entry.origin);
  }
  const Tensor place = at::cat(places);
  const Tensor own = place.ge(0).nonzero().reshape({-1});
  const Tensor order = own.index_select(0, place.index_select(0, own).argsort());
  return at::cat(values).index_select(0, order);
}

void RowState::finished(const Batch& batch, bool was_put_back) {
  if (was_put_back) {
    const bool keyed = keys.defined();
    rows = original;
    origin = positions = Tensor();
    left.clear();
    keys = keyed ? keys_of_rows(batch, rows) : Tensor();
    return;
  }
  choose(origin.ge(0).nonzero().reshape({-1}));
}

}  // namespace attune
