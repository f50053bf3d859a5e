// pair: two texts, with a label or a number.
#include "base/error.h"
#include "data/columns.h"
#include "tasks/registry.h"
#include "tasks/text_task.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Pair final : public TextTask {
 public:
  Pair() : TextTask(true) {}
  void restore(const Json& state, const TaskContext& context) override {
    TextTask::restore(state, context);
    number_ = state.value("regression", false);
  }
  Json state() const override {
    Json state = TextTask::state();
    state["regression"] = number_;
    return state;
  }
  HeadRequest head() const override {
    return {HeadKind::Sequence, number_ ? 1 : labels_.size(), "auto"};
  }
  std::unique_ptr<Tally> tally() const override {
    if (number_) return std::make_unique<NumberTally>();
    return std::make_unique<LabelTally>(labels_.names());
  }
  std::vector<Json> predictions(const Tensor& logits, const RowIndex&,
                                const std::vector<Example>& examples) const override {
    std::vector<Json> result;
    for (size_t i = 0; i < examples.size(); ++i)
      result.push_back(
          number_
              ? Json{{"score", logits.select(0, static_cast<int64_t>(i)).item<double>()}}
              : label_scores(labels_.names(), probabilities_of(logits, static_cast<int64_t>(i))));
    return result;
  }
  std::string objective() const override { return number_ ? "mse" : "cross_entropy"; }
  std::string main_metric() const override { return number_ ? "pearson" : "accuracy"; }
  std::string stratum(const Record& record) const override {
    return number_ ? "" : TextTask::stratum(record);
  }
  bool regression() const override { return number_; }

 protected:
  /// A `score` column, or a label that is a number with a fraction, makes it a regression.
  void learn(const Record& record) override {
    const std::string name = label_column(record);
    const bool scored = context_.columns.count("score") > 0 || name == "score" ||
                        (has_column(record, name) && column(record, name).is_number_float());
    if (first_) number_ = scored;
    first_ = false;
    if (number_) {
      number_of(record, score_column(record));
    } else {
      labels_.add(record, name);
    }
  }
  void learned() override {
    if (!number_) labels_.finish(2);
  }
  void label(const Record& record, Example& example) const override {
    if (number_) {
      example.targets = {static_cast<float>(number_of(record, score_column(record)))};
    } else {
      example.labels = {labels_.id(record, label_column(record))};
    }
  }

 private:
  std::string score_column(const Record& record) const {
    return context_.columns.count("score") > 0 ? context_.columns.at("score")
                                               : label_column(record);
  }
  bool first_ = true, number_ = false;
};

}  // namespace

void register_pair(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "pair";
  entry.summary =
      "two texts with a label (as classify) or a score (as regress); columns sentence1, sentence2 "
      "or text, "
      "text_pair";
  entry.reference = "accuracy, F1, Matthews; Pearson, Spearman";
  entry.make = [](const Options&) { return std::make_unique<Pair>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
