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
/// made for wider matrices.
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

/// inner = x in^T, then y += inner out where y is defined. Returns inner.
Tensor narrow_pass(const Tensor& x, const Tensor& in, const Tensor& out, const Tensor& y) {
  const int64_t rows = x.size(0), k = in.size(1), n = out.size(1), rank = in.size(0);
  if (rank > kNarrowPass) {
    const Tensor inner = product(x, in, false, true, x.scalar_type());
    if (y.defined()) add_product(inner, out, y);
    return inner;
  }
  Tensor inner = at::empty({rows, rank}, x.options());
  dispatch(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    kernels::low_rank_pass<T>(pointer<T>(x), pointer<T>(in), pointer<T>(out), rows, k, n, rank,
                              pointer<T>(inner), pointer<T>(y));
  });
  return inner;
}

/// scale inner^T x, or its transpose, in the master type.
Tensor narrow_gradient(const Tensor& inner, const Tensor& x, double scale, bool transposed) {
  const int64_t rank = inner.size(1), cols = x.size(1);
  const at::ScalarType master = master_of(dtype_of(x));
  // Floats that are stored as they come are what oneDNN is good at.
  const bool wide = rank > kNarrowGradient || (!transposed && dtype_of(x) == kernels::DType::F32);
  if (wide) {
    Tensor g = transposed ? product(x, inner, true, false, master)
                          : product(inner, x, true, false, master);
    return scale == 1 ? g : g.mul_(scale);
  }
  Tensor g =
      at::empty({transposed ? cols : rank, transposed ? rank : cols}, x.options().dtype(master));
  dispatch(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    kernels::low_rank_gradient<T>(pointer<T>(inner), pointer<T>(x), x.size(0), cols, rank, scale,
                                  transposed, pointer<acc_t<T>>(g));
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

}  // namespace

SideCar add_side_car(const Tensor& x, const LowRankTerm& term, const Tensor& row_keys,
                     const Tensor& y) {
  SideCar side;
  side.down = dense_as(term.down.detach(), x.scalar_type());
  side.up = turned(term.up.detach(), term.scale, x.scalar_type());
  side.row_keys = row_keys;
  if (row_keys.defined() && term.dropout > 0)
    side.drop = {static_cast<float>(term.dropout), pointer<const uint64_t>(row_keys),
                 term.dropout_site};
  side.inner = narrow_pass(dropped(x, side.drop), side.down, side.up, y);
  return side;
}

void side_car_backward(const SideCar& side, const LowRankTerm& term, const Tensor& x,
                       const Tensor& dy, const Tensor& dx, Tensors& result) {
  const bool need_down = term.down.requires_grad(), need_up = term.up.requires_grad();
  Tensor dinner;
  if (dx.defined() && side.drop.on()) {
    const Tensor part = at::zeros_like(dx);
    dinner = narrow_pass(dy, side.up, side.down, part);
    const Tensor kept = dropped(part, side.drop);
    dispatch(dx, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      kernels::add_inplace(pointer<T>(dx), pointer<T>(kept), dx.numel());
    });
  } else if (dx.defined() || need_down) {
    dinner = narrow_pass(dy, side.up, side.down, dx);
  }
  result.push_back(need_down ? narrow_gradient(dinner, dropped(x, side.drop), 1, false) : Tensor());
  result.push_back(need_up ? narrow_gradient(side.inner, dy, term.scale, true) : Tensor());
}

Tensor low_rank(const Tensor& x_in, const LowRankTerm& term, const Tensor& row_keys) {
  const Tensor x = x_in.detach().contiguous();
  const Tensor y = at::zeros({x.size(0), term.up.size(0)}, x.options());
  const SideCar side = add_side_car(x, term, row_keys, y);
  const at::ScalarType type = x.scalar_type();
  const Kept input = term.down.requires_grad() ? Kept(x_in, x) : Kept();
  return record(y, {x_in, term.down, term.up}, "low_rank",
                [=, need_x = wants_gradient(x_in)](const Tensors& g) -> Tensors {
                  const Tensor dy = dense_as(g[0], type);
                  const Tensor dx =
                      need_x ? at::zeros({dy.size(0), side.down.size(1)}, dy.options()) : Tensor();
                  Tensors result{dx};
                  side_car_backward(side, term, input.get(), dy, dx, result);
                  return result;
                });
}

}  // namespace attune
