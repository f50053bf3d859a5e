#include "train/evaluate.h"

#include "tensor/torch.h"

namespace attune {

Json evaluate(Model& model, const Task& task, const DataView& view, int64_t batch_tokens) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Tally> tally = task.tally();
  for_each_batch(
      task, view.size(), [&](int64_t i) { return view.at(i); }, true, batch_tokens,
      [&](const Batch& batch, const std::vector<Example>& examples, const std::vector<int64_t>&) {
        const Output output = model.forward(batch, {});
        tally->add(output.head->logits(Tensor()), batch.streams.at("enc").rows, examples);
      });
  return tally->metrics();
}

std::vector<Json> predict(Model& model, const Task& task, int64_t count,
                          const std::function<Record(int64_t)>& record, int64_t batch_tokens) {
  at::NoGradGuard no_grad;
  std::vector<Json> results(static_cast<size_t>(count));
  for_each_batch(task, count, record, false, batch_tokens,
                 [&](const Batch& batch, const std::vector<Example>& examples,
                     const std::vector<int64_t>& positions) {
                   const Output output = model.forward(batch, {});
                   std::vector<Json> part = task.predictions(
                       output.head->logits(Tensor()), batch.streams.at("enc").rows, examples);
                   for (size_t i = 0; i < part.size(); ++i)
                     results[static_cast<size_t>(positions[i])] = std::move(part[i]);
                 });
  return results;
}

}  // namespace attune
