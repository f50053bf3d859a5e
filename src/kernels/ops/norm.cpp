#include "kernels/ops/norm.h"

#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

kernels::Dropout DropSite::kernel() const {
  if (p <= 0 || !row_keys.defined()) return {};
  return {static_cast<float>(p), pointer<const uint64_t>(row_keys), site};
}

namespace {

struct NormSaved {
  Tensor h, mean, rstd, gamma, beta;
  double eps;
  DropSite drop;
  kernels::NormKind kind;
  bool need_x, need_residual, need_gamma, need_beta;
};

Tensors norm_gradients(const NormSaved& s, const Tensors& g) {
  const at::ScalarType type = s.h.scalar_type();
  const Tensor dy = g[0].defined() ? dense_as(g[0], type) : at::zeros_like(s.h);
  const Tensor extra = g.size() > 1 && g[1].defined() ? dense_as(g[1], type) : Tensor();
  const bool dropping = s.drop.kernel().on();
  Tensor dh = at::empty_like(s.h);
  Tensor dx = dropping && s.need_x ? at::empty_like(s.h) : Tensor();
  Tensor dgamma = s.need_gamma ? at::zeros_like(s.gamma) : Tensor();
  Tensor dbeta = s.need_beta ? at::zeros_like(s.gamma) : Tensor();
  dispatch(s.h, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = kernels::acc_t<T>;
    kernels::norm_backward<T>(s.kind, pointer<T>(dy), pointer<T>(extra), pointer<T>(s.h),
                              pointer<A>(s.mean), pointer<A>(s.rstd), pointer<A>(s.gamma),
                              s.drop.kernel(), s.h.size(0), s.h.size(1), pointer<T>(dh),
                              pointer<T>(dx), pointer<A>(dgamma), pointer<A>(dbeta));
  });
  return {s.need_x ? (dropping ? dx : dh) : Tensor(), s.need_residual ? dh : Tensor(), dgamma,
          dbeta};
}

/// norm(h) * gamma + beta, from the sum as it was stored.
Tensor norm_again(const NormSaved& s) {
  Tensor y = at::empty_like(s.h);
  const Tensor mean = at::empty_like(s.mean), rstd = at::empty_like(s.rstd);
  dispatch(s.h, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = kernels::acc_t<T>;
    kernels::norm_forward<T>(s.kind, pointer<T>(s.h), nullptr, {}, pointer<A>(s.gamma),
                             pointer<A>(s.beta), s.eps, s.h.size(0), s.h.size(1), nullptr,
                             pointer<T>(y), pointer<A>(mean), pointer<A>(rstd));
  });
  return y;
}

}  // namespace

NormResult add_norm(const Tensor& x_in, const Tensor& residual_in, const DropSite& drop,
                    const NormArgs& args, bool keep_sum) {
  const Tensor x = x_in.detach().contiguous();
  const Tensor residual = residual_in.defined() ? residual_in.detach().contiguous() : Tensor();
  const Tensor gamma = args.gamma.detach(),
               beta = args.beta.defined() ? args.beta.detach() : Tensor();
  const bool copy = residual.defined() || drop.kernel().on();
  Tensor h = copy ? at::empty_like(x) : Tensor();
  Tensor y = at::empty_like(x);
  Tensor mean = at::empty({x.size(0)}, gamma.options()), rstd = at::empty_like(mean);
  dispatch(x, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    using A = kernels::acc_t<T>;
    kernels::norm_forward<T>(args.kind, pointer<T>(x), pointer<T>(residual), drop.kernel(),
                             pointer<A>(gamma), pointer<A>(beta), args.eps, x.size(0), x.size(1),
                             pointer<T>(h), pointer<T>(y), pointer<A>(mean), pointer<A>(rstd));
  });
  const Tensor saved_h = copy ? h.detach() : x;
  NormSaved saved{saved_h,
                  mean,
                  rstd,
                  gamma,
                  beta,
                  args.eps,
                  drop,
                  args.kind,
                  wants_gradient(x_in),
                  wants_gradient(residual_in),
                  wants_gradient(args.gamma),
                  wants_gradient(args.beta)};
  Tensors outputs{y};
  if (keep_sum) outputs.push_back(copy ? h : x.detach());
  record(
      outputs, {x_in, residual_in, args.gamma, args.beta}, "add_norm",
      [saved](const Tensors& g) { return norm_gradients(saved, g); },
      [saved] { return norm_again(saved); });
  return {outputs[0], keep_sum ? outputs[1] : Tensor()};
}

}  // namespace attune
