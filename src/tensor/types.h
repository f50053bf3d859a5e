#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "kernels/gemm.h"
#include "kernels/kernels.h"

namespace attune {

/// The compute type of a tensor. Throws Internal for anything but float, bf16 and double.
kernels::DType dtype_of(const at::Tensor& x);
at::ScalarType scalar_of(kernels::DType type);
/// Type of parameters and statistics beside compute type `type`: double for F64, else float.
at::ScalarType master_of(kernels::DType type);
const char* dtype_name(kernels::DType type);

/// The tensor itself when it is dense, on the CPU and of type `type`; otherwise such a copy. Not
/// differentiable.
at::Tensor dense_as(const at::Tensor& x, at::ScalarType type);
/// Converts between float, bf16 and double as a differentiable step; the tensor itself when nothing
/// changes.
at::Tensor cast(const at::Tensor& x, at::ScalarType type);

/// Calls f with a null pointer of the element type of `x` (float*, double* or kernels::bf16*).
template <class F>
auto dispatch(const at::Tensor& x, F&& f) {
  switch (dtype_of(x)) {
    case kernels::DType::F32:
      return f(static_cast<float*>(nullptr));
    case kernels::DType::F64:
      return f(static_cast<double*>(nullptr));
    case kernels::DType::BF16:
      break;
  }
  return f(static_cast<kernels::bf16*>(nullptr));
}

/// The same for a tensor in a master type: float* or double*.
template <class F>
auto dispatch_master(const at::Tensor& x, F&& f) {
  if (dtype_of(x) == kernels::DType::F64) return f(static_cast<double*>(nullptr));
  return f(static_cast<float*>(nullptr));
}

template <class T>
T* pointer(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

}  // namespace attune
