#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

#include "core/edit.h"
#include "kernels/kernels.h"
#include "kernels/ops/norm.h"

namespace attune {

/// The two projections of an adapter, and what stands between and behind them.
/// Shapes: down [size, in], down_bias [size], up [out, size], up_bias [out], gain [1], in the
/// master type; the biases and the gain may be undefined.
struct Bottleneck {
  Tensor down, down_bias, up, up_bias;
  Tensor gain;  // a trained factor beside `scale`
  kernels::Activation activation = kernels::Activation::Relu;
  double scale = 1;
};

/// y = base + scale * gain * (drop(f(x down^T + down_bias)) up^T + up_bias), as one node.
/// Shapes: x [rows, in] in the compute type; base [rows, out] in the same type (may be x itself: a
/// serial adapter's residual) or undefined for zero; result [rows, out]. Gradients of the weights
/// come in the master type, and only for what wants one. Cost: rows * size * (in + out)
/// multiply-adds forward, twice that backward; beside them one pass over the rows each way.
/// Errors: BadInput when sizes differ; the message names the shapes.
/// Reference: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", arXiv
/// 1902.00751, section 2.1; He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer
/// Learning", arXiv 2110.04366.
Tensor bottleneck(const Tensor& x, const Tensor& base, const Bottleneck& weights,
                  const DropSite& drop = {});

/// norm(x + residual) * gamma + beta over the last size; residual may be undefined. x [rows, d] in
/// the compute type, gamma, beta [d] in the master type. Reference: Ba et al. 2016, arXiv
/// 1607.06450.
Tensor layer_norm(const Tensor& x, const Tensor& residual, const Tensor& gamma, const Tensor& beta,
                  double eps);

/// Dropout with probability p by the keys of a view's rows; off unless training.
DropSite drop_of(const View& view, double p);
/// The same for some of its rows: `index` int64 [n]. x [n, *].
Tensor dropout_rows(const Tensor& x, double p, const View& view, const Tensor& index);

/// f(x), elementwise, in the type of x.
Tensor activate(kernels::Activation f, const Tensor& x);

/// The names an option may give an activation, as its range: "relu|gelu|...".
extern const char* const kActivationNames;
/// Errors: Internal for a name that is not among them.
kernels::Activation activation_named(std::string_view name);

}  // namespace attune
