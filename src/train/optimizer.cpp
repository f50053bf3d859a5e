#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/kernels.h"
#include "tensor/autograd.h"
#include "tensor/memory.h"
#include "tensor/rows.h"
#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {

AdamW::Moments& AdamW::moments(const Param& param) {
  const std::pair<std::map<std::string, Moments>::iterator, bool> made =
      moments_.try_emplace(param.name);
  Moments& moment = made.first->second;
  if (!made.second) return moment;
  const Tensor plain = param.value.detach();
  moment.steps = at::zeros({1}, at::kLong);
  if (param.value.grad().defined() && param.value.grad().is_sparse()) {
    moment.m = zeros_when_written(plain);
    moment.v = zeros_when_written(plain);
    moment.rows = std::make_unique<TableRows>(
        plain, moment.m, moment.v, std::vector<bool>(static_cast<size_t>(plain.size(0)), false));
  } else {
    moment.m = at::zeros_like(plain);
    moment.v = at::zeros_like(plain);
  }
  return moment;
}

namespace {

bool learns(const Param& param) {
  return param.value.grad().defined() && param.lr_scale != 0 && !param.frozen;
}

/// The mask as one byte an element; undefined when everything trains.
Tensor bytes_of(const Param& param) {
  if (!param.mask.defined()) return Tensor();
  const at::IntArrayRef shape = param.value.sizes();
  if (!at::is_expandable_to(param.mask.sizes(), shape))
    fail(ErrorCode::Internal, "the mask of {} has a shape that does not broadcast to its tensor's",
         param.name);
  if (param.mask.numel() == 1 && param.mask.reshape({}).ne(0).item<bool>()) return Tensor();
  const Tensor bytes =
      param.mask.scalar_type() == at::kBool ? param.mask.view(at::kByte) : param.mask.to(at::kByte);
  return bytes.expand(shape).contiguous();
}

bool all_held_back(const Param& param) {
  return param.mask.defined() && param.mask.numel() == 1 &&
         !param.mask.reshape({}).ne(0).item<bool>();
}

/// The rows whose moments are not all zero.
std::vector<bool> rows_with_moments(const Tensor& m, const Tensor& v) {
  const Tensor any = at::logical_or(m.ne(0).any(1), v.ne(0).any(1));
  const bool* first = pointer<const bool>(any);
  return std::vector<bool>(first, first + any.numel());
}

/// All its numbers that are not zero.
Tensor numbers_of(const Param& param) {
  if (!param.mask.defined() && param.value.grad().is_sparse())
    return row_gradient(param.value.grad()).values;
  const Tensor gradient = gradient_of(param.value);
  const Tensor kept = param.mask.defined() ? gradient.masked_fill(param.mask.eq(0), 0) : gradient;
  return dense_as(kept, kept.scalar_type());
}

}  // namespace

void AdamW::update(const kernels::AdamW& options, const Param& param, const Tensor& mask,
                   Moments& moment) {
  if (param.value.grad().is_sparse() && !mask.defined()) {
    if (moment.rows == nullptr)
      moment.rows = std::make_unique<TableRows>(param.value.detach(), moment.m, moment.v,
                                                rows_with_moments(moment.m, moment.v));
    moment.rows->step(options, row_gradient(param.value.grad()));
    if (!leaves_behind_) moment.rows->bring_all();
    return;
  }
  if (moment.rows != nullptr) moment.rows->bring_all();
  moment.rows.reset();
  const Tensor gradient = dense_as(gradient_of(param.value), param.value.scalar_type());
  dispatch_master(param.value, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    kernels::adamw<T>(options, pointer<T>(param.value), pointer<const T>(gradient),
                      pointer<T>(moment.m), pointer<T>(moment.v), pointer<const uint8_t>(mask),
                      param.value.numel());
  });
  mark_changed(param.value);
}

void AdamW::settle() {
  // Tables that are whole in memory only now find room where activations were.
  for (const std::pair<const std::string, Moments>& entry : moments_)
    if (entry.second.rows != nullptr && entry.second.rows->lends()) return_free_memory();
  for (std::pair<const std::string, Moments>& entry : moments_)
    if (entry.second.rows != nullptr) entry.second.rows->bring_all();
}

void AdamW::let_go() {
  for (std::pair<const std::string, Moments>& entry : moments_)
    if (entry.second.rows != nullptr) entry.second.rows->let_go();
}

void AdamW::forget() {
  settle();
  moments_.clear();
}

void AdamW::step(std::vector<Param>& params, double lr, double gradient_scale) {
  for (Param& param : params) {
    if (!learns(param) || all_held_back(param)) continue;
    const Tensor mask = bytes_of(param);
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
    update(options, param, mask, moment);
  }
}

std::vector<std::pair<std::string, Tensor>> AdamW::state() const {
  std::vector<std::pair<std::string, Tensor>> result;
  for (const std::pair<const std::string, Moments>& entry : moments_) {
    result.emplace_back(entry.first + "#m", entry.second.m);
    result.emplace_back(entry.first + "#v", entry.second.v);
    result.emplace_back(entry.first + "#steps", entry.second.steps);
  }
  return result;
}

std::vector<std::string> AdamW::tensors() const {
  std::vector<std::string> result;
  for (const std::pair<const std::string, Moments>& entry : moments_) result.push_back(entry.first);
  return result;
}

void AdamW::expect(const std::vector<Param>& params, const std::vector<std::string>& names) {
  forget();
  for (const std::string& name : names) {
    const std::vector<Param>::const_iterator param =
        std::find_if(params.begin(), params.end(), [&](const Param& p) { return p.name == name; });
    if (param == params.end())
      fail(ErrorCode::BadInput,
           "the checkpoint holds the optimizer's moments of {}, which this recipe does not train; "
           "resume with the recipe of the run",
           name);
    moments(*param);
  }
}

void AdamW::compact() {
  settle();
  for (std::pair<const std::string, Moments>& entry : moments_) {
    Moments& moment = entry.second;
    if (moment.m.dim() != 2) continue;
    const std::vector<bool> reached = rows_with_moments(moment.m, moment.v);
    std::vector<int64_t> rows;
    for (size_t i = 0; i < reached.size(); ++i)
      if (reached[i]) rows.push_back(static_cast<int64_t>(i));
    if (2 * rows.size() > reached.size()) continue;
    const Tensor index = int64_tensor(rows);
    for (Tensor* values : {&moment.m, &moment.v}) {
      Tensor few = zeros_when_written(*values);
      few.index_copy_(0, index, values->index_select(0, index));
      *values = few;
    }
    moment.rows.reset();  // of the tensors before
  }
}

double gradient_norm(const std::vector<Param>& params) {
  double sum = 0;
  for (const Param& param : params) {
    if (!learns(param)) continue;
    const Tensor numbers = numbers_of(param);
    sum += dispatch_master(numbers, [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      return kernels::sum_of_squares(pointer<T>(numbers), numbers.numel());
    });
  }
  return std::sqrt(sum);
}

void clear_gradients(std::vector<Param>& params) {
  for (Param& param : params) param.value.mutable_grad() = Tensor();
}

}  // namespace attune
