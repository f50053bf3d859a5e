#include "core/bottleneck.h"

#include <fmt/ranges.h>

#include <array>
#include <utility>

#include "base/error.h"
#include "core/tuner.h"
#include "kernels/gemm.h"
#include "kernels/ops/rowwise.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

namespace {

kernels::Matrix view(const Tensor& x, bool transposed = false) {
  return {x.data_ptr(), dtype_of(x), x.size(0), x.size(1), transposed};
}
kernels::MutableMatrix target(const Tensor& x) {
  return {x.data_ptr(), dtype_of(x), x.size(0), x.size(1)};
}

Tensor column_sums(const Tensor& x) {
  Tensor sums = at::empty({x.size(1)}, x.options().dtype(master_of(dtype_of(x))));
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::column_sum(pointer<T>(x), x.size(0), x.size(1), pointer<kernels::acc_t<T>>(sums),
                        false);
  });
  return sums;
}

/// x with some elements set to zero, in place.
void drop_in_place(const Tensor& x, const kernels::Dropout& drop) {
  if (!drop.on()) return;
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::dropout(pointer<T>(x), pointer<T>(x), x.size(0), x.size(1), drop);
  });
}

/// f(x), or f'(x) * dy when dy is given.
Tensor bent(kernels::Activation f, const Tensor& x, const Tensor& dy = {}) {
  Tensor y = at::empty_like(x);
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    if (dy.defined())
      kernels::activation_backward(f, pointer<T>(x), pointer<T>(dy), pointer<T>(y), x.numel());
    else
      kernels::activation_forward(f, pointer<T>(x), pointer<T>(y), x.numel());
  });
  return y;
}

Tensor plain(const Tensor& x) {
  return x.defined() ? x.detach().contiguous() : Tensor();
}

/// A bias for products of rows like x.
Tensor bias_as(const Tensor& bias, const Tensor& x) {
  return bias.defined() ? dense_as(bias.detach(), master_of(dtype_of(x))) : Tensor();
}

/// What the backward pass needs; detached.
struct Saved {
  Tensor x, pre, hidden;  // compute type; pre: before the activation, hidden: after dropout
  Tensor down, up;        // compute type; up times the factor
  Tensor up_bias, gain;   // master type, as given
  Tensor plain_up;        // master type, for the gradient of the gain
  double scale = 1, factor = 1;
  kernels::Activation activation = kernels::Activation::Identity;
  DropSite drop;
  bool residual = false;  // the base is x
  bool need_x = false, need_base = false, need_down = false, need_down_bias = false,
       need_up = false, need_up_bias = false, need_gain = false;
};

/// Gradients of up, its bias and the gain from those of the result.
void outer_gradients(const Saved& s, const Tensor& dy, Tensors& result) {
  Tensor up, bias, gain;
  if (s.need_up || s.need_gain) up = product(dy, s.hidden, true, false, s.plain_up.scalar_type());
  if (s.up_bias.defined() && (s.need_up_bias || s.need_gain)) bias = column_sums(dy);
  if (s.need_gain) {
    // The output without its factor is never made: dy . (h up^T + b) = (dy^T h) . up + sum(dy) . b.
    gain = (up * s.plain_up).sum();
    if (bias.defined()) gain = gain + (bias * s.up_bias).sum();
    gain = (gain * s.scale).reshape(s.gain.sizes());
  }
  result.push_back(s.need_up ? up.mul_(s.factor) : Tensor());
  result.push_back(s.need_up_bias ? bias.mul_(s.factor) : Tensor());
  result.push_back(gain);
}

Tensors bottleneck_gradients(const Saved& s, const Tensor& gradient) {
  const at::ScalarType type = s.hidden.scalar_type(), master = master_of(dtype_of(s.hidden));
  const Tensor dy = dense_as(gradient, type);
  Tensors result(2);
  if (s.need_base && !s.residual) result[1] = dy;
  if (s.need_x || s.need_down || s.need_down_bias) {
    Tensor inner = product(dy, s.up, false, false, type);
    drop_in_place(inner, s.drop.kernel());
    if (s.activation != kernels::Activation::Identity) inner = bent(s.activation, s.pre, inner);
    if (s.need_x) {
      result[0] = s.residual ? dy.clone() : at::empty({dy.size(0), s.down.size(1)}, dy.options());
      kernels::gemm(view(inner), view(s.down), target(result[0]), nullptr, s.residual);
    }
    result.push_back(s.need_down ? product(inner, s.x, true, false, master) : Tensor());
    result.push_back(s.need_down_bias ? column_sums(inner) : Tensor());
  } else {
    result.resize(4);
  }
  outer_gradients(s, dy, result);
  return result;
}

void check_shapes(const Tensor& x, const Tensor& base, const Bottleneck& w) {
  const bool fits = x.dim() == 2 && w.down.dim() == 2 && w.up.dim() == 2 &&
                    x.size(1) == w.down.size(1) && w.up.size(1) == w.down.size(0) &&
                    (!base.defined() || (base.dim() == 2 && base.size(0) == x.size(0) &&
                                         base.size(1) == w.up.size(0)));
  if (!fits)
    fail(ErrorCode::BadInput,
         "a bottleneck of rows {} by down {} and up {}{}: the sizes do not fit; expected "
         "[rows, in], [size, in], [out, size] and [rows, out]",
         x.sizes().vec(), w.down.sizes().vec(), w.up.sizes().vec(),
         base.defined() ? fmt::format(" added to rows {}", base.sizes().vec()) : "");
}

/// The inner rows: f(x down^T + down_bias), with dropout. Fills in what the backward pass needs.
void run_inner(Saved& s, const Tensor& x, const Bottleneck& w) {
  s.down = dense_as(w.down.detach(), x.scalar_type());
  const Tensor bias = bias_as(w.down_bias, x);
  s.pre = at::empty({x.size(0), s.down.size(0)}, x.options());
  kernels::gemm(view(x), view(s.down, true), target(s.pre),
                bias.defined() ? bias.data_ptr() : nullptr, false);
  const bool dropping = s.drop.kernel().on();
  if (s.activation != kernels::Activation::Identity)
    s.hidden = bent(s.activation, s.pre);
  else
    s.hidden = dropping ? s.pre.clone() : s.pre;
  drop_in_place(s.hidden, s.drop.kernel());
}

/// base + factor * (hidden up^T + up_bias).
Tensor run_outer(Saved& s, const Tensor& base, const Bottleneck& w) {
  s.gain = plain(w.gain);
  s.factor = w.scale * (s.gain.defined() ? s.gain.item<double>() : 1.0);
  s.plain_up = plain(w.up);
  s.up_bias = bias_as(w.up_bias, s.hidden);
  s.up = dense_as(s.factor == 1 ? s.plain_up : s.plain_up * s.factor, s.hidden.scalar_type());
  const Tensor shift = s.up_bias.defined() ? s.up_bias * s.factor : Tensor();
  const Tensor y = base.defined() ? base.detach().clone(at::MemoryFormat::Contiguous)
                                  : at::empty({s.hidden.size(0), s.up.size(0)}, s.hidden.options());
  kernels::gemm(view(s.hidden), view(s.up, true), target(y),
                shift.defined() ? shift.data_ptr() : nullptr, base.defined());
  return y;
}

}  // namespace

Tensor bottleneck(const Tensor& x_in, const Tensor& base, const Bottleneck& w,
                  const DropSite& drop) {
  check_shapes(x_in, base, w);
  const Tensor x = plain(x_in);
  Saved s;
  s.scale = w.scale;
  s.activation = w.activation;
  s.drop = drop;
  s.residual = base.defined() && base.is_same(x_in);
  run_inner(s, x, w);
  const Tensor y = run_outer(s, base, w);
  s.need_x = wants_gradient(x_in);
  s.need_base = wants_gradient(base);
  s.need_down = wants_gradient(w.down);
  s.need_down_bias = wants_gradient(w.down_bias);
  s.need_up = wants_gradient(w.up);
  s.need_up_bias = wants_gradient(w.up_bias);
  s.need_gain = wants_gradient(w.gain);
  if (s.need_down) s.x = x;
  const Tensors inputs{x_in,  s.residual ? Tensor() : base, w.down, w.down_bias, w.up, w.up_bias,
                       w.gain};
  return record(y, inputs, "bottleneck",
                [s = std::move(s)](const Tensors& g) { return bottleneck_gradients(s, g[0]); });
}

Tensor layer_norm(const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                  double eps) {
  NormArgs args;
  args.gamma = gamma;
  args.beta = beta;
  args.eps = eps;
  return add_norm(x, residual, {}, args, false).y;
}

DropSite drop_of(const View& view, double p) {
  if (!view.pass.training || p <= 0) return {};
  return {p, view.row_keys, view.dropout_site};
}

Tensor dropout_rows(const Tensor& x, double p, const View& view, const Tensor& index) {
  if (!view.pass.training || p <= 0) return x;
  return dropout(x, DropSite{p, view.row_keys.index_select(0, index), view.dropout_site});
}

Tensor activate(kernels::Activation f, const Tensor& x) {
  return f == kernels::Activation::Identity ? x : activation(f, x);
}

const char* const kActivationNames = "relu|gelu|gelu_tanh|silu|quick_gelu|tanh|sigmoid|identity";

kernels::Activation activation_named(std::string_view name) {
  using kernels::Activation;
  static constexpr std::array<std::pair<std::string_view, Activation>, 8> kNames{
      {{"relu", Activation::Relu},
       {"gelu", Activation::Gelu},
       {"gelu_tanh", Activation::GeluTanh},
       {"silu", Activation::Silu},
       {"quick_gelu", Activation::QuickGelu},
       {"tanh", Activation::Tanh},
       {"sigmoid", Activation::Sigmoid},
       {"identity", Activation::Identity}}};
  for (const std::pair<std::string_view, Activation>& entry : kNames)
    if (entry.first == name) return entry.second;
  fail(ErrorCode::Internal, "there is no activation \"{}\"; expected one of {}", name,
       kActivationNames);
}

}  // namespace attune
