// classify: one label a text (or a pair of texts).
#include "base/text.h"
#include "tasks/registry.h"
#include "tasks/text_task.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Classify final : public TextTask {
 public:
  HeadRequest head() const override { return {HeadKind::Sequence, labels_.size(), "auto"}; }
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<LabelTally>(labels_.names());
  }
  std::vector<Json> predictions(const Tensor& logits, const RowIndex&,
                                const std::vector<Example>& examples) const override {
    std::vector<Json> result;
    for (size_t i = 0; i < examples.size(); ++i)
      result.push_back(
          label_scores(labels_.names(), probabilities_of(logits, static_cast<int64_t>(i))));
    return result;
  }
  std::string objective() const override { return "cross_entropy"; }
  std::string main_metric() const override { return "accuracy"; }

 protected:
  void learn(const Record& record) override { labels_.add(record, label_column(record)); }
  void learned() override { labels_.finish(2); }
  void label(const Record& record, Example& example) const override {
    example.labels = {labels_.id(record, label_column(record))};
  }
};

}  // namespace

void register_classify(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "classify";
  entry.summary = "one label a text; columns text, label (and text_pair)";
  entry.reference = "accuracy, macro and weighted F1 as scikit-learn; Matthews 1975";
  entry.make = [](const Options&) { return std::make_unique<Classify>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
