#include "kernels/ops/low_rank.h"

#include "kernels/low_rank.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

using kernels::acc_t;

/// Up to these ranks the kernels of kernels/low_rank.h are faster than oneDNN's products, which are
/// made for wider matrices: of one term, and of all terms of a gradient together.
constexpr int64_t kNarrowPass = 8, kNarrowGradient = 16;

Tensor dropped(const Tensor& x, const kernels::Dropout& drop) {
  if (!drop.on()) return x;
  Tensor y = at::empty_like(x);
  dispatch(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    kernels::dropout(pointer<T>(x), pointer<T>(y), x.size(0), x.size(1), drop);
  });
  return y;
}

/// Columns of inner values [rows, sum of ranks].
Tensor columns(const Tensor& inner, int64_t first, int64_t rank) {
  return inner.narrow(1, first, rank).contiguous();
}

template <class T>
kernels::Columns<T> columns_of(const Tensor& inner, int64_t first, int64_t rank) {
  return {pointer<T>(inner), first, rank, inner.size(1)};
}

/// y += inner out, for columns of inner from `first` on.
struct Target {
  Tensor out;  // [rank, n]
  int64_t first;
  Tensor y;
};

/// Columns of inner from `first` on become x in^T; then the targets get their products.
void narrow_pass(const Tensor& x, const Tensor& in, const Tensor& inner, int64_t first,
                 const std::vector<Target>& targets) {
  dispatch(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    std::vector<kernels::LowRankTarget<T>> list;
    for (const Target& to : targets)
      list.push_back({columns_of<const T>(inner, to.first, to.out.size(0)), pointer<T>(to.out),
                      to.out.size(1), pointer<T>(to.y)});
    kernels::low_rank_pass<T>(pointer<T>(x), pointer<T>(in), x.size(0), x.size(1),
                              columns_of<T>(inner, first, in.size(0)), list.data(),
                              static_cast<int>(list.size()));
  });
}

/// The same through oneDNN, which wants the columns by themselves.
void wide_pass(const Tensor& x, const Tensor& in, const Tensor& inner, int64_t first,
               const std::vector<Target>& targets) {
  inner.narrow(1, first, in.size(0)).copy_(product(x, in, false, true, x.scalar_type()));
  for (const Target& to : targets)
    add_product(columns(inner, to.first, to.out.size(0)), to.out, to.y);
}

/// scale inner^T x over columns of inner, or its transpose, in the master type.
Tensor gradient(const Tensor& inner, int64_t first, int64_t rank, const Tensor& x, double scale,
                bool transposed) {
  const int64_t cols = x.size(1);
  const at::ScalarType master = master_of(dtype_of(x));
  // Floats that are stored as they come are what oneDNN is good at.
  const bool wide = rank > kNarrowGradient || (!transposed && dtype_of(x) == kernels::DType::F32);
  if (wide) {
    const Tensor own = columns(inner, first, rank);
    Tensor g =
        transposed ? product(x, own, true, false, master) : product(own, x, true, false, master);
    return scale == 1 ? g : g.mul_(scale);
  }
  Tensor g =
      at::empty({transposed ? cols : rank, transposed ? rank : cols}, x.options().dtype(master));
  dispatch(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    kernels::low_rank_gradient<T>(columns_of<const T>(inner, first, rank), pointer<T>(x), x.size(0),
                                  cols, scale, transposed, pointer<acc_t<T>>(g));
  });
  return g;
}

/// scale up^T in the compute type.
Tensor turned(const Tensor& up, double scale, at::ScalarType type) {
  Tensor w = at::empty({up.size(1), up.size(0)}, up.options().dtype(type));
  dispatch(w, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const Tensor dense = dense_as(up, master_of(dtype_of(w)));
    kernels::low_rank_turn<T>(pointer<acc_t<T>>(dense), up.size(0), up.size(1), scale,
                              pointer<T>(w));
  });
  return w;
}

Tensor joined(const Tensors& parts) {
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

}  // namespace

SideCars::SideCars(const Tensor& x, const std::vector<LowRankTerm>& terms, const Tensor& row_keys,
                   const Tensors& y)
    : terms_(terms), row_keys_(row_keys) {
  groups_ = groups();
  for (Group& group : groups_) add(x, group, y);
}

bool SideCars::need_input() const {
  for (const LowRankTerm& term : terms_)
    if (term.down.requires_grad()) return true;
  return false;
}

/// A term with dropout sees rows of its own and stays alone; narrow and wide ones have different
/// products.
std::vector<SideCars::Group> SideCars::groups() const {
  std::vector<Group> groups;
  size_t shared[2] = {SIZE_MAX, SIZE_MAX};
  for (size_t i = 0; i < terms_.size(); ++i) {
    const LowRankTerm& term = terms_[i];
    const bool narrow = term.down.size(0) <= kNarrowPass,
               drops = row_keys_.defined() && term.dropout > 0;
    size_t& place = shared[narrow ? 1 : 0];
    if (drops || place == SIZE_MAX) {
      groups.emplace_back();
      groups.back().narrow = narrow;
      if (drops)
        groups.back().drop = {static_cast<float>(term.dropout), pointer<const uint64_t>(row_keys_),
                              term.dropout_site};
      else
        place = groups.size() - 1;
    }
    groups[drops ? groups.size() - 1 : place].terms.push_back(i);
  }
  return groups;
}

void SideCars::add(const Tensor& x, Group& group, const Tensors& y) const {
  Tensors downs;
  std::vector<Tensors> ups;  // by part
  int64_t ranks = 0;
  for (const size_t i : group.terms) {
    const LowRankTerm& term = terms_[i];
    downs.push_back(dense_as(term.down.detach(), x.scalar_type()));
    if (group.parts.empty() || group.parts.back().output != term.output) {
      group.parts.push_back({Tensor(), ranks, term.output});
      ups.emplace_back();
    }
    ups.back().push_back(turned(term.up.detach(), term.scale, x.scalar_type()));
    ranks += term.down.size(0);
  }
  group.down = joined(downs);
  group.inner = at::empty({x.size(0), ranks}, x.options());
  std::vector<Target> targets;
  for (size_t p = 0; p < group.parts.size(); ++p) {
    Part& part = group.parts[p];
    part.up = joined(ups[p]);
    targets.push_back({part.up, part.first, y[part.output]});
  }
  const auto pass = group.narrow ? narrow_pass : wide_pass;
  pass(dropped(x, group.drop), group.down, group.inner, 0, targets);
}

Tensors SideCars::backward(const Tensor& x, const Tensors& dy, const Tensor& dx) const {
  Tensors result(2 * terms_.size());
  for (const Group& group : groups_) backward(group, x, dy, dx, result);
  return result;
}

void SideCars::backward(const Group& group, const Tensor& x, const Tensors& dy, const Tensor& dx,
                        Tensors& result) const {
  bool need_down = false;
  for (const size_t i : group.terms) need_down = need_down || terms_[i].down.requires_grad();
  if (dx.defined() || need_down) {
    const auto pass = group.narrow ? narrow_pass : wide_pass;
    const Tensor dinner = at::empty_like(group.inner);
    // Dropout takes the side-cars' part alone.
    const Tensor part = dx.defined() && group.drop.on() ? at::zeros_like(dx) : dx;
    for (size_t p = 0; p < group.parts.size(); ++p) {
      std::vector<Target> targets;
      if (p + 1 == group.parts.size() && dx.defined()) targets.push_back({group.down, 0, part});
      pass(dy[group.parts[p].output], group.parts[p].up, dinner, group.parts[p].first, targets);
    }
    if (dx.defined() && group.drop.on()) {
      const Tensor kept = dropped(part, group.drop);
      dispatch(dx, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        kernels::add_inplace(pointer<T>(dx), pointer<T>(kept), dx.numel());
      });
    }
    if (need_down) {
      const Tensor all = gradient(dinner, 0, dinner.size(1), dropped(x, group.drop), 1, false);
      int64_t first = 0;
      for (const size_t i : group.terms) {
        const int64_t rank = terms_[i].down.size(0);
        if (terms_[i].down.requires_grad()) result[2 * i] = all.narrow(0, first, rank);
        first += rank;
      }
    }
  }
  int64_t first = 0;
  for (const size_t i : group.terms) {
    const LowRankTerm& term = terms_[i];
    const int64_t rank = term.down.size(0);
    if (term.up.requires_grad())
      result[2 * i + 1] = gradient(group.inner, first, rank, dy[term.output], term.scale, true);
    first += rank;
  }
}

Tensor low_rank(const Tensor& x_in, const LowRankTerm& term, const Tensor& row_keys) {
  const Tensor x = x_in.detach().contiguous();
  const Tensor y = at::zeros({x.size(0), term.up.size(0)}, x.options());
  const SideCars side(x, {term}, row_keys, {y});
  const at::ScalarType type = x.scalar_type();
  const Kept input = side.need_input() ? Kept(x_in, x) : Kept();
  return record(y, {x_in, term.down, term.up}, "low_rank",
                [=, need_x = wants_gradient(x_in)](const Tensors& g) -> Tensors {
                  const Tensor dy = dense_as(g[0], type);
                  const Tensor dx =
                      need_x ? at::zeros({dy.size(0), term.down.size(1)}, dy.options()) : Tensor();
                  Tensors result = side.backward(input.get(), {dy}, dx);
                  result.insert(result.begin(), dx);
                  return result;
                });
}

}  // namespace attune
