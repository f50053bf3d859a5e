#include <algorithm>
#include <cmath>

#include "method_bench.h"
#include "support/toy_run.h"

namespace attune {
namespace sparse_mask_test {

Json options(const std::string& choose, double density) {
  return Json{{"choose", choose}, {"density", density}};
}

/// What the masks let train, by name of the trained tensor.
Snapshot masks_of(const ToyRun& run) {
  Snapshot masks;
  for (const Param& param : run.adaptation.trainable())
    masks[param.name] = param.mask.ne(0).expand(param.value.sizes()).clone();
  return masks;
}

int64_t ones(const Snapshot& masks) {
  int64_t count = 0;
  for (const std::pair<const std::string, Tensor>& mask : masks)
    count += mask.second.sum().item<int64_t>();
  return count;
}

int64_t elements_of(const ToyRun& run) {
  int64_t count = 0;
  for (const Param& param : run.adaptation.trainable()) count += param.value.numel();
  return count;
}

/// The `count` largest of all scores together, by a full sort.
Snapshot largest(const Snapshot& scores, int64_t count) {
  std::vector<double> all;
  for (const std::pair<const std::string, Tensor>& entry : scores)
    for (int64_t i = 0; i < entry.second.numel(); ++i)
      all.push_back(entry.second.reshape({-1})[i].item<double>());
  std::sort(all.rbegin(), all.rend());
  Snapshot masks;
  for (const std::pair<const std::string, Tensor>& entry : scores)
    masks[entry.first] = entry.second.ge(all[static_cast<size_t>(count - 1)]);
  return masks;
}

TEST(SparseMask, ExactlyTheShareOfAllParametersTrains) {
  for (const char* choose : {"fisher", "magnitude", "random"})
    for (const double density : {0.001, 0.1, 0.33, 1.0}) {
      ToyRun run({{"sparse_mask", options(choose, density)}});
      run.config.steps = 1;
      run.train();
      const int64_t expected = std::llround(density * static_cast<double>(elements_of(run)));
      EXPECT_EQ(ones(masks_of(run)), expected) << choose << " " << density;
      std::vector<Site> sites;
      for (const Site& site : run.model.sites())
        if (site.kind == SiteKind::Weight && site.name != "head.proj") sites.push_back(site);
      const Entry<Tuner>& entry = run.registry.at("sparse_mask");
      const Options given(entry.options, Node::from_json(options(choose, density), {"test", 0, 0}),
                          "test");
      EXPECT_EQ(entry.count(sites, given), expected);
    }
}

TEST(SparseMask, MagnitudeTakesTheLargestOfAllTensorsTogether) {
  ToyRun run({{"sparse_mask", options("magnitude", 0.2)}});
  Snapshot scores;
  for (const Param& param : run.adaptation.trainable())
    scores[param.name] = run.base(param.name).abs();
  EXPECT_TRUE(same(masks_of(run), largest(scores, ones(masks_of(run)))));
}

TEST(SparseMask, ByTensorEachGetsTheSameShare) {
  Json given = options("random", 0.25);
  given["scope"] = "tensor";
  ToyRun run({{"sparse_mask", given}});
  for (const std::pair<const std::string, Tensor>& mask : masks_of(run))
    EXPECT_EQ(mask.second.sum().item<int64_t>(),
              std::llround(0.25 * static_cast<double>(mask.second.numel())))
        << mask.first;
}

TEST(SparseMask, FisherIsTheMeanOfSquaredGradientsOfEachExample) {
  ToyRun run({{"sparse_mask", options("fisher", 0.1)}});
  run.config.batches.batch_size = 1;  // so that a batch is an example
  run.config.steps = 1;
  run.train();
  // The reference: one backward pass an example, by hand.
  ToyRun reference({{"full", Json{{"sites", {"enc.*"}}}}});
  Snapshot fisher;
  for (int64_t example = 0; example < 12; ++example) {
    const Batch batch = toy_batch(example, 1);
    backward(reference.model.forward(batch, {})
                 .head->cross_entropy(batch.fields.at("labels"), Tensor(), 0)
                 .sum);
    for (Param& param : reference.adaptation.trainable()) {
      std::string name = param.name;
      name.replace(name.find("full"), 4, "sparse_mask");
      const Tensor square = param.value.grad() * param.value.grad() / 12;
      fisher[name] = fisher.count(name) > 0 ? fisher[name] + square : square;
      param.value.mutable_grad() = Tensor();
    }
  }
  EXPECT_TRUE(same(masks_of(run), largest(fisher, ones(masks_of(run)))));
}

TEST(SparseMask, WhatIsNotChosenStaysBitEqualUnderDecayClippingAndAccumulation) {
  ToyRun run({{"sparse_mask", options("random", 0.1)}});
  run.config.adamw.weight_decay = 0.5;
  run.config.clip = 0.1;
  run.config.accumulate = 2;
  run.train();
  const Snapshot masks = masks_of(run), values = run.trained();
  int64_t moved = 0;
  for (const std::pair<const std::string, Tensor>& value : values) {
    const Tensor changed = value.second.ne(run.base(value.first));
    EXPECT_FALSE(changed.logical_and(masks.at(value.first).logical_not()).any().item<bool>());
    moved += changed.sum().item<int64_t>();
  }
  EXPECT_GT(moved, ones(masks) * 9 / 10);  // unused embedding rows have no gradient
}

TEST(SparseMask, ChoosingAllIsFullFineTuning) {
  ToyRun sparse({{"sparse_mask", options("random", 1)}});
  ToyRun full({{"full", Json{{"sites", {"enc.*"}}}}});
  sparse.train();
  full.train();
  for (const std::pair<const std::string, Tensor>& entry : full.trained()) {
    std::string name = entry.first;
    name.replace(name.find("full"), 4, "sparse_mask");
    EXPECT_TRUE(at::equal(entry.second, sparse.trained().at(name))) << name;
  }
}

TEST(SparseMask, BiasesAndNormsMayBeLeftOut) {
  Json given = options("magnitude", 0.5);
  given["biases"] = false;
  given["norms"] = false;
  const ToyRun run({{"sparse_mask", given}});
  for (const Param& param : run.adaptation.trainable()) {
    EXPECT_TRUE(ends_with(param.name, "/weight")) << param.name;
    EXPECT_EQ(param.name.find("norm"), std::string::npos) << param.name;
  }
}

TEST(SparseMask, AResumedRunKeepsTheChosenMasksAndEndsWithTheSameBits) {
  ToyRun whole({{"sparse_mask", options("fisher", 0.1)}});
  ToyRun rest({{"sparse_mask", options("fisher", 0.1)}});
  whole.train();
  rest.resume_from(whole, 4);
  EXPECT_TRUE(same(masks_of(whole), masks_of(rest)));
  EXPECT_TRUE(same(whole.trained(), rest.trained()));
}

TEST(SparseMask, BadOptionsAreReadableErrors) {
  EXPECT_NE(MethodBench::error_of("sparse_mask", Json{{"density", 0}}).find("(0, 1]"),
            std::string::npos);
  EXPECT_NE(MethodBench::error_of("sparse_mask", Json{{"density", 1.5}}).find("(0, 1]"),
            std::string::npos);
  EXPECT_EQ(MethodBench::error_of("sparse_mask", Json{{"density", 1e-9}}),
            "sparse_mask: density 1e-09 leaves no parameter to train; give a larger one");
  EXPECT_NE(
      MethodBench::error_of("sparse_mask", Json{{"choose", "largest"}}).find("fisher, magnitude"),
      std::string::npos)
      << MethodBench::error_of("sparse_mask", Json{{"choose", "largest"}});
}

TEST(SparseMask, FisherWithoutLabelledExamplesIsAReadableError) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  Tuner& tuner = bench->attach("sparse_mask", options("fisher", 0.5));
  Calibration empty;
  empty.gradients = [](int64_t, const std::function<void(double)>& each) { each(0); };
  EXPECT_EQ(error_text(ErrorCode::BadInput, [&] { tuner.calibrate(empty); }),
            "sparse_mask: the Fisher information needs labelled training examples, but there is "
            "none among the first 128 batch(es) of the data");
}

}  // namespace sparse_mask_test
}  // namespace attune
