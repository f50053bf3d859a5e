#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/ops/linear.h"
#include "kernels/ops/rowwise.h"

namespace attune {

/// The output matrix of a language model. weight [classes, features], bias [classes] or undefined,
/// in the master type; copies may be null.
struct WordProjection {
  at::Tensor weight, bias;
  WeightCopies* copies = nullptr;
};

/// Rows that one product makes logits of: so many that they hold at most `bytes` bytes, a
/// multiple of 64.
int64_t word_chunk_rows(int64_t classes, int64_t bytes = int64_t{32} << 20);

/// cross_entropy of the logits x W^T + b, made `chunk_rows` labelled rows at a time (0:
/// word_chunk_rows), so that those of all rows never exist at once; rows labelled -100 cost
/// nothing. Gradients are made in the same sweep (the loss is a sum, so they only wait for a
/// factor) and never exceed one chunk of logits, x and W. x [rows, features] in the compute type;
/// logits and losses in the master type; labels int64 [rows]; class_weights [classes] or undefined.
/// Cost: 2 n features classes multiply-adds forward for n labelled rows, as many again for each of
/// x and W that wants a gradient. Errors: BadInput for a label outside the classes, naming its row.
CrossEntropy word_cross_entropy(const at::Tensor& x, const WordProjection& words,
                                const at::Tensor& labels, const at::Tensor& class_weights,
                                double smoothing, int64_t chunk_rows = 0);

/// Negative log-likelihood of each row's label, double [rows], 0 for -100. No gradient.
at::Tensor word_row_losses(const at::Tensor& x, const WordProjection& words,
                           const at::Tensor& labels, int64_t chunk_rows = 0);

/// The same from ready logits [rows, classes].
at::Tensor row_losses(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace attune
