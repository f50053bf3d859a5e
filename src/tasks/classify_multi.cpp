// classify_multi: any number of labels a text.
#include <cmath>

#include "metrics/classification.h"
#include "tasks/registry.h"
#include "tasks/text_task.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class MultiTally final : public Tally {
 public:
  explicit MultiTally(std::vector<std::string> names) : names_(std::move(names)) {}
  void add(const Tensor& logits, const RowIndex&, const std::vector<Example>& examples) override {
    const Tensor values = logits.to(at::kDouble).contiguous();
    const double* x = static_cast<const double*>(values.data_ptr());
    for (const Example& example : examples) {
      std::vector<uint8_t> gold, predicted;
      for (const float target : example.targets) {
        gold.push_back(target > 0.5F);
        predicted.push_back(*x++ > 0);
      }
      gold_.push_back(std::move(gold));
      predicted_.push_back(std::move(predicted));
    }
  }
  Json metrics() const override {
    const MultilabelReport report = multilabel_report(gold_, predicted_);
    Json types = Json::object();
    for (size_t i = 0; i < names_.size(); ++i)
      types[names_[i]] = Json{{"precision", report.precision[i]},
                              {"recall", report.recall[i]},
                              {"f1", report.f1[i]},
                              {"support", report.support[i]}};
    return Json{{"micro_f1", report.micro_f1},
                {"macro_f1", report.macro_f1},
                {"weighted_f1", report.weighted_f1},
                {"samples_f1", report.samples_f1},
                {"accuracy", report.accuracy},
                {"examples", gold_.size()},
                {"per_label", types}};
  }

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<uint8_t>> gold_, predicted_;
};

class ClassifyMulti final : public TextTask {
 public:
  HeadRequest head() const override { return {HeadKind::Sequence, labels_.size(), "auto"}; }
  std::unique_ptr<Tally> tally() const override {
    return std::make_unique<MultiTally>(labels_.names());
  }
  std::vector<Json> predictions(const Tensor& logits, const RowIndex&,
                                const std::vector<Example>& examples) const override {
    const Tensor values = logits.to(at::kDouble).contiguous();
    const double* x = static_cast<const double*>(values.data_ptr());
    std::vector<Json> result;
    for (size_t i = 0; i < examples.size(); ++i) {
      Json chosen = Json::array(), scores = Json::object();
      for (const std::string& name : labels_.names()) {
        const double probability = 1.0 / (1.0 + std::exp(-*x++));
        scores[name] = probability;
        if (probability > 0.5) chosen.push_back(name);
      }
      result.push_back(Json{{"labels", chosen}, {"scores", scores}});
    }
    return result;
  }
  std::string objective() const override { return "binary_cross_entropy"; }
  std::string main_metric() const override { return "micro_f1"; }
  std::string stratum(const Record&) const override { return ""; }

 protected:
  void learn(const Record& record) override { labels_.add(record, column(record)); }
  void learned() override { labels_.finish(1); }
  void label(const Record& record, Example& example) const override {
    example.targets.assign(static_cast<size_t>(labels_.size()), 0.0F);
    for (const int64_t id : labels_.ids(record, column(record)))
      example.targets[static_cast<size_t>(id)] = 1.0F;
  }

 private:
  std::string column(const Record& record) const {
    return context_.columns.count("labels") > 0 ? context_.columns.at("labels")
                                                : column_of(record, "label", {"labels", "label"});
  }
};

}  // namespace

void register_classify_multi(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "classify_multi";
  entry.summary = "any number of labels a text; columns text, labels (a list)";
  entry.reference = "micro, macro, weighted and samples F1 as scikit-learn";
  entry.make = [](const Options&) { return std::make_unique<ClassifyMulti>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
