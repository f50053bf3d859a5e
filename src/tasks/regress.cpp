// regress: one number a text (or a pair of texts).
#include "data/columns.h"
#include "tasks/registry.h"
#include "tasks/text_task.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Regress final : public TextTask {
 public:
  HeadRequest head() const override { return {HeadKind::Sequence, 1, "auto"}; }
  std::unique_ptr<Tally> tally() const override { return std::make_unique<NumberTally>(); }
  std::vector<Json> predictions(const Tensor& logits, const RowIndex&,
                                const std::vector<Example>& examples) const override {
    std::vector<Json> result;
    const Tensor values = logits.to(at::kDouble).reshape({-1}).contiguous();
    for (size_t i = 0; i < examples.size(); ++i)
      result.push_back(Json{{"score", static_cast<const double*>(values.data_ptr())[i]}});
    return result;
  }
  std::string objective() const override { return "mse"; }
  std::string main_metric() const override { return "pearson"; }
  std::string stratum(const Record&) const override { return ""; }
  bool regression() const override { return true; }

 protected:
  void learn(const Record& record) override { number_of(record, score_column(record)); }
  void label(const Record& record, Example& example) const override {
    example.targets = {static_cast<float>(number_of(record, score_column(record)))};
  }

 private:
  std::string score_column(const Record& record) const {
    return context_.columns.count("score") > 0 ? context_.columns.at("score")
                                               : label_column(record);
  }
};

}  // namespace

void register_regress(Registry<Task>& registry) {
  Entry<Task> entry;
  entry.name = "regress";
  entry.summary = "one number a text; columns text, label or score (and text_pair)";
  entry.reference = "Pearson and Spearman correlation, mean squared error";
  entry.make = [](const Options&) { return std::make_unique<Regress>(); };
  registry.add(std::move(entry));
}

}  // namespace attune
