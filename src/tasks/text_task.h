#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/labels.h"
#include "tasks/task.h"

namespace attune {

/// What the tasks over one or two texts with a sequence head share: columns, encoding, packing.
class TextTask : public Task {
 public:
  /// needs_pair: the second text is required; otherwise it is used when the row or the recipe has
  /// it.
  explicit TextTask(bool needs_pair = false) : needs_pair_(needs_pair) {}
  void prepare(const Dataset& train, const TaskContext& context) override;
  void restore(const Json& state, const TaskContext& context) override;
  Json state() const override;
  Example encode(const Record& record, bool with_labels) const override;
  Batch collate(const std::vector<Example>& examples) const override;
  const std::vector<std::string>& labels() const override { return labels_.names(); }
  std::vector<int64_t> label_counts() const override { return labels_.counts(); }
  std::string stratum(const Record& record) const override;

 protected:
  /// Learns from one training row.
  virtual void learn(const Record& record) = 0;
  virtual void learned() {}
  /// What a training row must have beside its label, without tokenising it: a row that lacks it
  /// would stop the run half way. Errors: BadInput naming the row.
  virtual void check_row(const Record& record) const { texts_of(record); }
  /// Fills labels or targets of an example.
  virtual void label(const Record& record, Example& example) const = 0;
  /// The column that holds a role: as the recipe maps it, else the first default name the record
  /// has.
  std::string column_of(const Record& record, const std::string& role,
                        const std::vector<std::string>& defaults) const;
  std::string label_column(const Record& record) const;
  void check_length(const Record& record, Example& example, int64_t dropped) const;

  TaskContext context_;
  LabelSet labels_;

 private:
  struct Texts {
    std::string first, second;
    bool pair = false;
  };
  Texts texts_of(const Record& record) const;
  bool needs_pair_;
};

/// The packed stream of examples plus their ids.
Batch pack(const std::vector<Example>& examples);
/// Probabilities of a row of logits.
std::vector<double> probabilities_of(const Tensor& logits, int64_t row);
/// {"label": name, "score": p, "scores": {name: p, ...}}.
Json label_scores(const std::vector<std::string>& names, const std::vector<double>& probabilities);

/// Accuracy, F1, Matthews and the confusion matrix over one label a sequence.
class LabelTally final : public Tally {
 public:
  explicit LabelTally(std::vector<std::string> names) : names_(std::move(names)) {}
  void add(const Tensor& logits, const RowIndex& rows,
           const std::vector<Example>& examples) override;
  Json metrics() const override;

 private:
  std::vector<std::string> names_;
  std::vector<int64_t> gold_, predicted_;
};

/// Pearson, Spearman, MSE, MAE over one number a sequence.
class NumberTally final : public Tally {
 public:
  void add(const Tensor& logits, const RowIndex& rows,
           const std::vector<Example>& examples) override;
  Json metrics() const override;

 private:
  std::vector<double> gold_, predicted_;
};

}  // namespace attune
