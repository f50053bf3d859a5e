#include "tensor/autograd.h"

#include "base/error.h"
#include "tensor/compat.h"
#include "tensor/torch.h"

namespace attune {

namespace {

class ClosureNode : public torch::autograd::Node {
 public:
  ClosureNode(const char* name, Backward backward) : name_(name), backward_(std::move(backward)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!backward_)
      fail(ErrorCode::Internal, "backward of {} ran twice; its saved tensors are gone", name_);
    at::NoGradGuard no_grad;
    return backward_(gradients);
  }
  void release_variables() override { backward_ = nullptr; }
  std::string name() const override { return name_; }

 private:
  const char* name_;
  Backward backward_;
};

}  // namespace

bool wants_gradient(const Tensor& x) {
  return x.defined() && at::GradMode::is_enabled() && x.requires_grad();
}

void record(Tensors& outputs, const Tensors& inputs, const char* name, Backward backward) {
  bool needed = false;
  for (const Tensor& input : inputs) needed = needed || wants_gradient(input);
  if (!needed) return;
  const NodePointer node = make_node<ClosureNode>(name, std::move(backward));
  torch::autograd::edge_list edges;
  edges.reserve(inputs.size());
  for (const Tensor& input : inputs)
    edges.push_back(wants_gradient(input) ? torch::autograd::impl::gradient_edge(input)
                                          : torch::autograd::Edge());
  node->set_next_edges(std::move(edges));
  for (Tensor& output : outputs)
    if (output.defined()) torch::autograd::set_history(output, node);
}

Tensor record(Tensor output, const Tensors& inputs, const char* name, Backward backward) {
  Tensors outputs{std::move(output)};
  record(outputs, inputs, name, std::move(backward));
  return outputs[0];
}

void backward(const Tensor& loss, bool keep) {
  torch::autograd::backward({loss}, {}, keep);
}

namespace {

/// Leaves with the inputs' values that want gradients where the inputs do.
Tensors leaves_of(const Tensors& values, const std::vector<bool>& wanted) {
  Tensors leaves;
  for (size_t i = 0; i < values.size(); ++i)
    leaves.push_back(wanted[i] ? as_leaf(values[i]) : values[i]);
  return leaves;
}

}  // namespace

Tensor recomputed(const Tensors& inputs, std::function<Tensor(const Tensors& inputs)> body) {
  if (!at::GradMode::is_enabled()) return body(inputs);
  Tensors values;
  std::vector<bool> wanted;
  for (const Tensor& input : inputs) {
    values.push_back(input.defined() ? input.detach() : input);
    wanted.push_back(wants_gradient(input));
  }
  Tensor result = body(leaves_of(values, wanted));
  if (!result.requires_grad()) return result;
  result = result.detach();  // the graph goes, and what it kept with it
  Tensors from = inputs;
  from.push_back(as_leaf(at::zeros({})));  // so that there is a node when no input wants gradients
  return record(result, from, "recomputed",
                [values, wanted, body = std::move(body)](const Tensors& g) -> Tensors {
                  const at::AutoGradMode recording(true);
                  const Tensors leaves = leaves_of(values, wanted);
                  torch::autograd::backward({body(leaves)}, {g[0]}, /*retain_graph=*/true);
                  Tensors gradients;
                  for (size_t i = 0; i < leaves.size(); ++i)
                    gradients.push_back(wanted[i] ? leaves[i].grad() : Tensor());
                  gradients.emplace_back();
                  return gradients;
                });
}

Tensor as_leaf(const Tensor& value) {
  Tensor leaf = value.detach();
  leaf.set_requires_grad(true);
  return leaf;
}

void mark_changed(const Tensor& tensor) {
  tensor.unsafeGetTensorImpl()->bump_version();
}

int64_t version_of(const Tensor& tensor) {
  return static_cast<int64_t>(tensor.unsafeGetTensorImpl()->version_counter().current_version());
}

}  // namespace attune
