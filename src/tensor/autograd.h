#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
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
using Remake = std::function<Tensor()>;

/// Joins freshly computed outputs to the graph as one node over `inputs` (undefined ones allowed).
/// Does nothing when no input wants a gradient. The closures must not hold an output itself (a
/// cycle): hold output.detach().
void record(Tensors& outputs, const Tensors& inputs, const char* name, Backward backward,
            Remake remake = {});
Tensor record(Tensor output, const Tensors& inputs, const char* name, Backward backward,
              Remake remake = {});

class Remaking;

/// An operand that a node keeps for its backward pass: its values or, where the node that made it
/// can make it again at little cost (an activation, a norm), only the way to do so. Nodes that read
/// the same output share what is made: it lives from the first that asks to the last.
class Kept {
 public:
  Kept() = default;
  /// x as the operation was given it; values: the same, detached and contiguous.
  Kept(const Tensor& x, const Tensor& values);
  /// The values; to be called once in each backward pass.
  Tensor get() const;

 private:
  Tensor values_;
  std::shared_ptr<Remaking> remaking_;
};

/// The tensor itself, to write a gradient over it, when nobody else holds it or its memory and it
/// is contiguous and of the type; otherwise a new one like it. Kernels that read each number before
/// they write it may have it as their operand and result.
Tensor place_of(const Tensor& gradient, at::ScalarType type);

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
