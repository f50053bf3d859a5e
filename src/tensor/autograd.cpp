#include "tensor/autograd.h"

#include "base/error.h"
#include "tensor/compat.h"
#include "tensor/torch.h"

namespace attune {

/// Makes an output again for the nodes that keep only this.
class Remaking {
 public:
  explicit Remaking(Remake make) : make_(std::move(make)) {}
  void join() { left_ = ++users_; }
  Tensor get() {
    Tensor made = made_.defined() ? made_ : make_();
    --left_;
    made_ = left_ > 0 ? made : Tensor();
    if (left_ <= 0) left_ = users_;  // the graph may be gone through again
    return made;
  }

 private:
  Remake make_;
  int users_ = 0, left_ = 0;
  Tensor made_;
};

namespace {

class ClosureNode : public torch::autograd::Node {
 public:
  ClosureNode(const char* name, Backward backward, Remake remake)
      : name_(name), backward_(std::move(backward)) {
    if (remake) remaking_ = std::make_shared<Remaking>(std::move(remake));
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!backward_)
      fail(ErrorCode::Internal, "backward of {} ran twice; its saved tensors are gone", name_);
    at::NoGradGuard no_grad;
    return backward_(gradients);
  }
  void release_variables() override {
    backward_ = nullptr;
    remaking_ = nullptr;
  }
  std::string name() const override { return name_; }
  const std::shared_ptr<Remaking>& remaking() const { return remaking_; }

 private:
  const char* name_;
  Backward backward_;
  std::shared_ptr<Remaking> remaking_;
};

}  // namespace

bool wants_gradient(const Tensor& x) {
  return x.defined() && at::GradMode::is_enabled() && x.requires_grad();
}

void record(Tensors& outputs, const Tensors& inputs, const char* name, Backward backward,
            Remake remake) {
  bool needed = false;
  for (const Tensor& input : inputs) needed = needed || wants_gradient(input);
  if (!needed) return;
  const NodePointer node = make_node<ClosureNode>(name, std::move(backward), std::move(remake));
  torch::autograd::edge_list edges;
  edges.reserve(inputs.size());
  for (const Tensor& input : inputs)
    edges.push_back(wants_gradient(input) ? torch::autograd::impl::gradient_edge(input)
                                          : torch::autograd::Edge());
  node->set_next_edges(std::move(edges));
  for (Tensor& output : outputs)
    if (output.defined()) torch::autograd::set_history(output, node);
}

Tensor record(Tensor output, const Tensors& inputs, const char* name, Backward backward,
              Remake remake) {
  Tensors outputs{std::move(output)};
  record(outputs, inputs, name, std::move(backward), std::move(remake));
  return outputs[0];
}

Kept::Kept(const Tensor& x, const Tensor& values) {
  const ClosureNode* node = dynamic_cast<const ClosureNode*>(x.grad_fn().get());
  if (node != nullptr && x.output_nr() == 0) remaking_ = node->remaking();
  if (remaking_ != nullptr)
    remaking_->join();
  else
    values_ = values;
}

Tensor Kept::get() const {
  return remaking_ != nullptr ? remaking_->get() : values_;
}

Tensor place_of(const Tensor& gradient, at::ScalarType type) {
  if (gradient.layout() == at::kStrided && gradient.scalar_type() == type &&
      gradient.is_contiguous() && gradient.use_count() == 1 && gradient.storage().use_count() == 1)
    return gradient;
  return at::empty(gradient.sizes(), gradient.options().dtype(type));
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

Tensor gradient_of(const Tensor& leaf) {
  const Tensor gradient = leaf.grad();
  return gradient.defined() && gradient.is_sparse() ? gradient.to_dense() : gradient;
}

Tensor as_sparse(const RowGradient& gradient, const Tensor& table) {
  return at::_sparse_coo_tensor_unsafe(gradient.rows.unsqueeze(0), gradient.values, table.sizes(),
                                       gradient.values.options().layout(at::kSparse));
}

RowGradient row_gradient(const Tensor& sparse) {
  const Tensor rows = sparse._indices()[0].contiguous();
  const int64_t* row = rows.data_ptr<int64_t>();
  bool ascending = true;
  for (int64_t i = 1; i < rows.numel(); ++i) ascending = ascending && row[i - 1] < row[i];
  if (ascending) return {rows, sparse._values().contiguous()};
  const Tensor summed = sparse.coalesce();
  return {summed._indices()[0].contiguous(), summed._values().contiguous()};
}

void mark_changed(const Tensor& tensor) {
  tensor.unsafeGetTensorImpl()->bump_version();
}

int64_t version_of(const Tensor& tensor) {
  return static_cast<int64_t>(tensor.unsafeGetTensorImpl()->version_counter().current_version());
}

}  // namespace attune
