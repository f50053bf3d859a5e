#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/kernels.h"
#include "kernels/ops/norm.h"
#include "tensor/rows.h"

namespace attune {

/// f(x), elementwise.
at::Tensor activation(kernels::Activation f, const at::Tensor& x);
/// f(gate) * up.
at::Tensor gated_activation(kernels::Activation f, const at::Tensor& gate, const at::Tensor& up);
/// Dropout by the keys of the rows (kernels.h says which elements); x itself when off.
at::Tensor dropout(const at::Tensor& x, const DropSite& drop);

/// Tables of at least so many numbers get their gradient as rows where a batch reads few of them.
constexpr int64_t kLargeTable = 1 << 20;

/// Sum of rows gathered from up to four tables [vocabulary, cols] (master type; a frozen one may be
/// in half precision: the rows read are converted) by int32 indices
/// [rows], in compute type `type`. Row `padding` of the first table gets no gradient, as torch's
/// padding_idx (-1: none). A large table that is a leaf and of which few rows are read gets a
/// sparse gradient (tensor/autograd.h, gradient_of). Errors: BadInput naming table and value when
/// an index is outside its table.
at::Tensor embedding(const std::vector<at::Tensor>& tables, const std::vector<at::Tensor>& indices,
                     at::ScalarType type, int64_t padding = -1);

/// One row a sequence, in the master type [sequences, cols].
at::Tensor pool(kernels::Pool kind, const at::Tensor& x, const RowIndex& rows);

struct CrossEntropy {
  at::Tensor sum;    // double scalar
  double count = 0;  // labelled rows, or the sum of their weights
};
/// logits [rows, classes] in the master or compute type, labels int64 [rows] with -100 skipped,
/// weights [classes] in the logits' type or undefined.
CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& labels,
                           const at::Tensor& weights, double smoothing);

}  // namespace attune
