#pragma once
// Training runs of the toy model through the real trainer, its checkpoints included.
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "methods/registry.h"
#include "objectives/registry.h"
#include "policies/registry.h"
#include "support/temp_folder.h"
#include "support/toy_model.h"
#include "train/trainer.h"

namespace attune {

/// Rows {"n": number}: sequence n of toy_batch's list.
class ToyTask : public Task {
 public:
  void prepare(const Dataset&, const TaskContext&) override {}
  void restore(const Json&, const TaskContext&) override {}
  Json state() const override { return {}; }
  HeadRequest head() const override { return {HeadKind::Sequence, 3, "mean"}; }
  Example encode(const Record& record, bool) const override {
    Example example;
    const int64_t number = record.value.at("n").get<int64_t>();
    const Batch one = toy_batch(number, 1);
    const int32_t* ids = static_cast<const int32_t*>(one.streams.at("enc").ids.data_ptr());
    example.ids.assign(ids, ids + one.streams.at("enc").ids.numel());
    example.labels = {number % 3};
    return example;
  }
  Batch collate(const std::vector<Example>& examples) const override {
    Batch batch;
    std::vector<int32_t> ids;
    std::vector<int64_t> lengths, labels, numbers;
    for (const Example& example : examples) {
      ids.insert(ids.end(), example.ids.begin(), example.ids.end());
      lengths.push_back(static_cast<int64_t>(example.ids.size()));
      labels.push_back(example.labels[0]);
      numbers.push_back(example.id);
    }
    batch.streams["enc"].ids = int32_tensor(ids);
    batch.streams["enc"].rows = RowIndex::from_lengths(lengths);
    batch.fields["labels"] = int64_tensor(labels);
    batch.fields["example"] = int64_tensor(numbers);
    return batch;
  }
  std::unique_ptr<Tally> tally() const override { return nullptr; }
  std::vector<Json> predictions(const Tensor&, const RowIndex&,
                                const std::vector<Example>&) const override {
    return {};
  }
  std::string objective() const override { return "cross_entropy"; }
  std::string main_metric() const override { return "accuracy"; }
  const std::vector<std::string>& labels() const override { return labels_; }
  std::vector<int64_t> label_counts() const override { return {}; }
  std::string stratum(const Record&) const override { return ""; }

 private:
  std::vector<std::string> labels_{"a", "b", "c"};
};

/// Values of tensors by name, copied.
using Snapshot = std::map<std::string, Tensor>;
inline bool same(const Snapshot& a, const Snapshot& b) {
  if (a.size() != b.size()) return false;
  for (const std::pair<const std::string, Tensor>& entry : a)
    if (b.count(entry.first) == 0 || !at::equal(entry.second, b.at(entry.first))) return false;
  return true;
}

/// One run: model, methods, policies and a trainer over 12 sequences in batches of 3.
class ToyRun {
 public:
  using Named = std::vector<std::pair<std::string, Json>>;

  explicit ToyRun(const Named& method_list, const Named& policy_list = {}, double dropout = 0,
                  int layers = 2)
      : ToyRun(methods(), method_list, policy_list, dropout, layers) {}

  ToyRun(Registry<Tuner> methods, const Named& method_list, const Named& policy_list = {},
         double dropout = 0, int layers = 2)
      : model(layers, dropout), registry(std::move(methods)), adaptation(model, registry, 5) {
    for (const std::pair<std::string, Json>& method : method_list)
      adaptation.add("default", {method.first, method.second});
    const Registry<TrainingPolicy> known = attune::policies();
    for (const std::pair<std::string, Json>& policy : policy_list) {
      const Entry<TrainingPolicy>& entry = known.at(policy.first);
      policies.push_back(entry.make(
          Options(entry.options, Node::from_json(policy.second, {"test", 0, 0}), "policies[0]")));
    }
    const Registry<Objective> losses = objectives();
    objective = losses.at("cross_entropy")
                    .make(Options(losses.at("cross_entropy").options, Node(), "objective"));
    std::string rows;
    for (int n = 0; n < 12; ++n) rows += "{\"n\": " + std::to_string(n) + "}\n";
    data = DataView::all(Dataset::open(folder.write("rows.jsonl", rows)));
    config.epochs = 2;
    config.batches.batch_size = 3;
    config.lr = 0.02;
    config.adamw.weight_decay = 0.1;
    config.save_every = {Interval::Kind::Steps, 1};
    config.keep = 100;
    config.seed = 3;
  }

  Trainer::Result train(bool resume = false) {
    Progress progress(stderr, Progress::Mode::Quiet);
    Trainer trainer(config,
                    TrainParts{model, adaptation, task, *objective, policies, data, DataView{},
                               Tensor(), folder.file("run"), [] {}},
                    progress);
    std::filesystem::create_directories(folder.file("run/checkpoints"));
    return trainer.run(resume);
  }
  /// Goes on from another run's checkpoint after `step` steps.
  Trainer::Result resume_from(const ToyRun& other, int64_t step) {
    const std::string name = fmt::format("run/checkpoints/step-{:06}", step);
    std::filesystem::create_directories(folder.file("run/checkpoints"));
    std::filesystem::copy(other.folder.file(name), folder.file(name),
                          std::filesystem::copy_options::recursive);
    std::filesystem::copy(other.folder.file("run/log.jsonl"), folder.file("run/log.jsonl"));
    return train(true);
  }
  Snapshot trained() const {
    Snapshot result;
    for (const Param& param : adaptation.trainable())
      result[param.name] = param.value.detach().clone();
    return result;
  }
  /// The base value of a thawed parameter.
  Tensor base(const std::string& name) {
    const std::vector<std::string> parts = split(name, '/');
    const WeightSlot& slot = model.slot(model.site(parts[2]));
    return parts[3] == "weight" ? slot.weight : slot.bias;
  }

  TempFolder folder;
  ToyModel model;
  Registry<Tuner> registry;
  Adaptation adaptation;
  std::vector<std::unique_ptr<TrainingPolicy>> policies;
  std::unique_ptr<Objective> objective;
  ToyTask task;
  DataView data;
  TrainConfig config;
};

}  // namespace attune
