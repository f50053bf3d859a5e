#include "tasks/task.h"

#include "base/error.h"
#include "tensor/torch.h"

namespace attune {

void Tally::measure(Model& model, const Batch& batch, const std::vector<Example>& examples) {
  const Output output = model.forward(batch, {});
  add(output.head->logits(Tensor()), batch.streams.begin()->second.rows, examples);
}

void Tally::add(const Tensor&, const RowIndex&, const std::vector<Example>&) {
  fail(ErrorCode::Internal, "this task's metrics are not made from logits");
}

std::vector<Json> Task::predict(Model& model, const Batch& batch,
                                const std::vector<Example>& examples) const {
  const Output output = model.forward(batch, {});
  return predictions(output.head->logits(Tensor()), batch.streams.begin()->second.rows, examples);
}

std::vector<Json> Task::predictions(const Tensor&, const RowIndex&,
                                    const std::vector<Example>&) const {
  fail(ErrorCode::Internal, "this task's predictions are not made from logits");
}

}  // namespace attune
