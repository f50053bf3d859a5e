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

/// How a node makes its first output again, to the same bits, from what its backward closure keeps
/// anyway (see Kept).
struct Remake {
  std::function<Tensor()> make;
  bool shared = false;  // several nodes read the output: each would make it again
};
/// Joins freshly computed outputs to the graph as one node over `inputs` (undefined ones allowed).
/// Does nothing when no input wants a gradient. The closures must not hold an output itself (a
/// cycle): hold output.detach().
void record(Tensors& outputs, const Tensors& inputs, const char* name, Backward backward,
            Remake remake = {});
Tensor record(Tensor output, const Tensors& inputs, const char* name, Backward backward,
              Remake remake = {});

/// An operand that a node keeps for its backward pass: its values or, where the node that made it
/// can make it again at little cost (an activation), only the way to do so.
class Kept {
 public:
  Kept() = default;
  /// x as the operation was given it; values: the same, detached and contiguous. `sparing`: an
  /// output that others read too is made again as well.
  Kept(const Tensor& x, const Tensor& values, bool sparing);
  /// The values, made again at each call where they were not kept.
  Tensor get() const { return make_ ? make_() : values_; }

 private:
  Tensor values_;
  std::function<Tensor()> make_;
};

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

/// The gradient of a leaf, dense; undefined when it has none. Read gradients with this: large
/// tables of which a batch reads few rows get theirs as rows.
Tensor gradient_of(const Tensor& leaf);
/// A gradient of [rows, cols] that is zero outside some rows.
struct RowGradient {
  Tensor rows;    // int64 [n], ascending
  Tensor values;  // [n, cols], contiguous
};
/// The same as a (sparse) tensor of the table's shape.
Tensor as_sparse(const RowGradient& gradient, const Tensor& table);
/// Of a sparse gradient; rows that occur several times (accumulation) are summed.
RowGradient row_gradient(const Tensor& sparse);

/// Tells autograd (and every cached copy) that a tensor's memory was changed by a kernel.
void mark_changed(const Tensor& tensor);
/// Number of changes a tensor has seen; with its address, the key of cached copies.
int64_t version_of(const Tensor& tensor);

}  // namespace attune
