#include "tensor/types.h"

#include "base/error.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {

kernels::DType dtype_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return kernels::DType::F32;
    case at::kBFloat16:
      return kernels::DType::BF16;
    case at::kDouble:
      return kernels::DType::F64;
    default:
      break;
  }
  fail(ErrorCode::Internal,
       "a kernel was given a tensor of type {}; it takes float, bf16 and double",
       toString(x.scalar_type()));
}

at::ScalarType scalar_of(kernels::DType type) {
  switch (type) {
    case kernels::DType::F32:
      return at::kFloat;
    case kernels::DType::BF16:
      return at::kBFloat16;
    case kernels::DType::F64:
      break;
  }
  return at::kDouble;
}

at::ScalarType master_of(kernels::DType type) {
  return type == kernels::DType::F64 ? at::kDouble : at::kFloat;
}

const char* dtype_name(kernels::DType type) {
  switch (type) {
    case kernels::DType::F32:
      return "fp32";
    case kernels::DType::BF16:
      return "bf16";
    case kernels::DType::F64:
      break;
  }
  return "fp64";
}

namespace {
Tensor converted(const at::Tensor& x, at::ScalarType type) {
  const Tensor from = x.contiguous();
  if (from.scalar_type() == type) return from;
  Tensor to = at::empty(from.sizes(), from.options().dtype(type));
  if (from.scalar_type() == at::kFloat && type == at::kBFloat16) {
    kernels::convert(pointer<float>(from), pointer<kernels::bf16>(to), from.numel());
  } else if (from.scalar_type() == at::kBFloat16 && type == at::kFloat) {
    kernels::convert(pointer<kernels::bf16>(from), pointer<float>(to), from.numel());
  } else {
    to.copy_(from);
  }
  return to;
}
}  // namespace

at::Tensor dense_as(const at::Tensor& x, at::ScalarType type) {
  if (x.scalar_type() == type && x.is_contiguous()) return x;
  at::NoGradGuard no_grad;
  return converted(x.detach(), type);
}

at::Tensor cast(const at::Tensor& x, at::ScalarType type) {
  if (x.scalar_type() == type) return x;
  const at::ScalarType from = x.scalar_type();
  return record(dense_as(x, type), {x}, "cast",
                [from](const Tensors& dy) -> Tensors { return {dense_as(dy[0], from)}; });
}

}  // namespace attune
