#include "train/evaluate.h"

#include "base/text.h"
#include "tensor/torch.h"

namespace attune {

Json evaluate(Model& model, const Task& task, const DataView& view, int64_t batch_tokens) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Tally> tally = task.tally();
  for_each_batch(
      task, view.size(), [&](int64_t i) { return view.encode(task, i, true); }, batch_tokens,
      [&](const Batch& batch, const std::vector<Example>& examples, const std::vector<int64_t>&) {
        tally->measure(model, batch, examples);
      });
  return tally->metrics();
}

namespace {

void add_numbers(const Json& metrics, const std::string& prefix, Json& numbers) {
  for (const auto& [name, value] : metrics.items())
    if (value.is_number() && name != "examples") numbers[prefix + name] = value;
}

}  // namespace

Evaluation evaluate_all(Model& model, const Task& task, const DataView& main,
                        const std::vector<NamedView>& others, int64_t batch_tokens) {
  Evaluation result;
  if (main.size() > 0) {
    result.metrics = evaluate(model, task, main, batch_tokens);
    add_numbers(result.metrics, "", result.numbers);
  }
  for (const NamedView& other : others) {
    result.eval_on[other.name] = evaluate(model, task, other.view, batch_tokens);
    add_numbers(result.eval_on[other.name], other.name + "/", result.numbers);
  }
  return result;
}

std::string Evaluation::text() const {
  constexpr size_t kLine = 60;
  std::string text;
  std::string set;
  for (const auto& [name, value] : numbers.items()) {
    const std::string of = name.substr(0, name.size() - metric_name(name).size());
    // Of every set the first number at least.
    if (text.size() >= kLine && of == set) continue;
    text += format("{}{} {:.4f}", text.empty() ? "" : ", ", name, value.get<double>());
    set = of;
  }
  return text;
}

std::string metric_name(const std::string& name) {
  const size_t slash = name.rfind('/');
  return slash == std::string::npos ? name : name.substr(slash + 1);
}

std::vector<Json> predict(Model& model, const Task& task, int64_t count,
                          const std::function<Record(int64_t)>& record, int64_t batch_tokens) {
  at::NoGradGuard no_grad;
  std::vector<Json> results(static_cast<size_t>(count));
  for_each_batch(
      task, count, [&](int64_t i) { return task.encode(record(i), false); }, batch_tokens,
      [&](const Batch& batch, const std::vector<Example>& examples,
          const std::vector<int64_t>& positions) {
        std::vector<Json> part = task.predict(model, batch, examples);
        for (size_t i = 0; i < part.size(); ++i)
          results[static_cast<size_t>(positions[i])] = std::move(part[i]);
      });
  return results;
}

}  // namespace attune
