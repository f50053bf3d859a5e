#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace attune {

using at::Tensor;
using Tensors = std::vector<Tensor>;

/// True when gradients are being recorded and `x` (may be undefined) takes part.
bool wants_gradient(const Tensor& x);

/// Gradients of the inputs from the gradients of the outputs (undefined entries mean zero), in
/// input order; an undefined result means no gradient. Runs without recording.
using Backward = std::function<Tensors(const Tensors& output_gradients)>;

/// Joins freshly computed outputs to the graph as one node over `inputs` (undefined ones allowed).
/// Does nothing when no input wants a gradient. The closure must not hold an output itself (a
/// cycle): hold output.detach().
void record(Tensors& outputs, const Tensors& inputs, const char* name, Backward backward);
Tensor record(Tensor output, const Tensors& inputs, const char* name, Backward backward);

/// Runs the backward pass from a scalar. `keep`: what the graph saved stays until the graph goes,
/// which a graph with recomputed parts needs.
void backward(const Tensor& loss, bool keep = false);

/// body(inputs) as one node that keeps nothing but its inputs: the backward pass runs body again,
/// recording, to have what its gradients need. Undefined inputs are allowed. body must give the
/// same values again; tensors it takes from elsewhere get their gradients too, the graph behind
/// them is gone through once for each node. Reference: Chen et al. 2016, "Training Deep Nets with
/// Sublinear Memory Cost", arXiv 1604.06174, section 4.
Tensor recomputed(const Tensors& inputs, std::function<Tensor(const Tensors& inputs)> body);

/// A tensor that autograd treats as a leaf with requires_grad set.
Tensor as_leaf(const Tensor& value);

/// Tells autograd (and every cached copy) that a tensor's memory was changed by a kernel.
void mark_changed(const Tensor& tensor);
/// Number of changes a tensor has seen; with its address, the key of cached copies.
int64_t version_of(const Tensor& tensor);

}  // namespace attune
