// What a training step sums up, and at which rates its tensors learn.
#include <gtest/gtest.h>

#include "base/text.h"
#include "policies/registry.h"
#include "tensor/autograd.h"
#include "tiny_model.h"

namespace attune {
namespace gradients_test {

/// Sequences first, first + 1, ... of one fixed list, packed.
Batch batch_of(int64_t first, int64_t count) {
  Batch batch;
  std::vector<int32_t> ids;
  std::vector<int64_t> lengths, labels, examples;
  for (int64_t b = first; b < first + count; ++b) {
    lengths.push_back(2 + b);
    labels.push_back(b % 3);
    examples.push_back(50 + b);
    for (int64_t r = 0; r < 2 + b; ++r)
      ids.push_back(static_cast<int32_t>(1 + (7 * b + 3 * r) % 59));
  }
  batch.streams["enc"].ids = int32_tensor(ids);
  batch.streams["enc"].rows = RowIndex::from_lengths(lengths);
  batch.fields["labels"] = int64_tensor(labels);
  batch.fields["example"] = int64_tensor(examples);
  batch.pass.training = true;
  batch.pass.seed = 3;
  return batch;
}

/// Gradients of the summed loss over the batches, by name.
std::map<std::string, Tensor> gradients(Model& model, Adaptation& adaptation,
                                        const std::vector<Batch>& batches, double& loss) {
  loss = 0;
  for (const Batch& batch : batches) {
    const Tensor sum =
        model.forward(batch, {}).head->cross_entropy(batch.fields.at("labels"), Tensor(), 0).sum;
    loss += sum.item<double>();
    backward(sum);
  }
  std::map<std::string, Tensor> result;
  for (Param& param : adaptation.trainable()) {
    result[param.name] = param.value.grad().clone();
    param.value.mutable_grad() = Tensor();
  }
  return result;
}

TEST(Accumulation, FourMicroBatchesEqualOneOfFourWithDropoutToo) {
  for (const double dropout : {0.0, 0.2}) {
    const std::unique_ptr<Model> model = tiny_model(dropout);
    const Registry<Tuner> registry = methods();
    Adaptation adaptation(*model, registry, 1);
    adaptation.add("default", {"full", Json::object()});
    double whole_loss = 0, parts_loss = 0;
    const std::map<std::string, Tensor> whole =
        gradients(*model, adaptation, {batch_of(0, 4)}, whole_loss);
    const std::map<std::string, Tensor> parts =
        gradients(*model, adaptation,
                  {batch_of(2, 1), batch_of(0, 1), batch_of(3, 1), batch_of(1, 1)}, parts_loss);
    EXPECT_NEAR(whole_loss, parts_loss, 1e-12);
    for (const std::pair<const std::string, Tensor>& entry : whole)
      EXPECT_LE((entry.second - parts.at(entry.first)).abs().max().item<double>(), 1e-12)
          << entry.first;
  }
}

TEST(LayerDecay, RatesFallByTheFactorFromBlockToBlock) {
  const std::unique_ptr<Model> model = tiny_model(0, 3);
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"full", Json::object()});
  std::vector<Param> params = adaptation.trainable();
  const Registry<TrainingPolicy> known = policies();
  const Entry<TrainingPolicy>& entry = known.at("layer_decay");
  const Options options(entry.options, Node::from_json(Json{{"factor", 0.5}}, {"test", 0, 0}),
                        "policies[0]");
  TrainState state{*model, adaptation, params, {}};
  entry.make(options)->begin(state);
  for (const Param& param : params) {
    const std::string site = split(param.name, '/')[2];
    double expected = 1;
    if (starts_with(site, "enc.embed.")) expected = 0.0625;
    if (starts_with(site, "enc.0.")) expected = 0.125;
    if (starts_with(site, "enc.1.")) expected = 0.25;
    if (starts_with(site, "enc.2.")) expected = 0.5;
    EXPECT_DOUBLE_EQ(param.lr_scale, expected) << param.name;
  }
}

}  // namespace gradients_test
}  // namespace attune
