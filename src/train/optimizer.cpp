#include "train/optimizer.h"

#include <cmath>

#include "kernels/kernels.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

AdamW::Moments& AdamW::moments(const Param& param) {
  for (Moments& entry : moments_)
    if (entry.name == param.name) return entry;
  const Tensor plain = param.value.detach();
  moments_.push_back(
      {param.name, at::zeros_like(plain), at::zeros_like(plain), at::zeros({1}, at::kLong)});
  return moments_.back();
}

namespace {

template <class T>
void update(const kernels::AdamW& options, const Tensor& value, const Tensor& gradient,
            const Tensor& m, const Tensor& v, const Tensor& mask) {
  kernels::adamw<T>(options, pointer<T>(value), pointer<const T>(gradient), pointer<T>(m),
                    pointer<T>(v), pointer<const uint8_t>(mask), value.numel());
}

}  // namespace

void AdamW::step(std::vector<Param>& params, double lr, double gradient_scale) {
  for (Param& param : params) {
    if (!param.value.grad().defined() || param.lr_scale == 0) continue;
    Moments& moment = moments(param);
    int64_t& steps = *pointer<int64_t>(moment.steps);
    kernels::AdamW options;
    options.lr = lr * param.lr_scale;
    options.beta1 = options_.beta1;
    options.beta2 = options_.beta2;
    options.eps = options_.eps;
    options.weight_decay = param.weight_decay >= 0 ? param.weight_decay
                           : param.decays          ? options_.weight_decay
                                                   : 0;
    options.step = ++steps;
    options.gradient_scale = gradient_scale;
    const Tensor gradient = dense_as(param.value.grad(), param.value.scalar_type());
    if (param.value.scalar_type() == at::kDouble) {
      update<double>(options, param.value, gradient, moment.m, moment.v, param.mask);
    } else {
      update<float>(options, param.value, gradient, moment.m, moment.v, param.mask);
    }
    mark_changed(param.value);
  }
}

std::vector<std::pair<std::string, Tensor>> AdamW::state(const std::vector<Param>& params) {
  std::vector<std::pair<std::string, Tensor>> result;
  for (const Param& param : params) {
    const Moments& moment = moments(param);
    result.emplace_back(param.name + "#m", moment.m);
    result.emplace_back(param.name + "#v", moment.v);
    result.emplace_back(param.name + "#steps", moment.steps);
  }
  return result;
}

double gradient_norm(const std::vector<Param>& params) {
  double sum = 0;
  for (const Param& param : params) {
    const Tensor gradient = param.value.grad();
    if (!gradient.defined() || param.lr_scale == 0) continue;
    const Tensor dense = dense_as(gradient, gradient.scalar_type());
    sum += dense.scalar_type() == at::kDouble
               ? kernels::sum_of_squares(pointer<double>(dense), dense.numel())
               : kernels::sum_of_squares(pointer<float>(dense), dense.numel());
  }
  return std::sqrt(sum);
}

void clear_gradients(std::vector<Param>& params) {
  for (Param& param : params) param.value.mutable_grad() = Tensor();
}

}  // namespace attune
