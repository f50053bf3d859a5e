// Every method on a model whose frozen weights stay in half precision: the same bits as on their
// values in the master type.
#include "base/text.h"
#include "methods.h"
#include "tensor/autograd.h"

namespace attune {
namespace half_weights_test {

using namespace tiny;

/// Projections and word tables of `model` in half precision, the same numbers in `wide` in fp32.
void halve_weights(Model& model, Model& wide, at::ScalarType half) {
  for (const Site& site : model.sites()) {
    if (site.kind != SiteKind::Weight) continue;
    const bool large = site.weight == WeightKind::Projection || ends_with(site.name, ".tok");
    WeightSlot& slot = model.slot(site);
    if (!large || !slot.weight.defined()) continue;
    slot.weight = slot.weight.to(half);
    wide.slot(site).weight = slot.weight.to(at::kFloat);
  }
}

class HalfWeights : public MethodTest {
 protected:
  /// model_ in half precision, wide_ in full, each with the method.
  void halve(at::ScalarType half) {
    model_ = new_model(kernels::DType::BF16);
    wide_ = new_model(kernels::DType::BF16);
    halve_weights(*model_, *wide_, half);
    batch_ = batch_of(*model_, {5, 1, 7, 3, 2, 6});
    adapt();
    other_ = std::make_unique<Adaptation>(*wide_, registry_, 1);
    other_->add("default", spec());
    disturb(*adaptation_);
    disturb(*other_);
  }
  std::unique_ptr<Model> wide_;
  std::unique_ptr<Adaptation> other_;
};

TEST_P(HalfWeights, ComputeAndTrainAsTheirValuesInFullDo) {
  halve(entry().name.size() % 2 == 0 ? at::kBFloat16 : at::kHalf);
  EXPECT_TRUE(same(everything(*model_, batch_), everything(*wide_, batch_)));
  backward(loss(*model_, batch_, adaptation_.get()));
  backward(loss(*wide_, batch_, other_.get()));
  const std::vector<Param> params = adaptation_->trainable(), others = other_->trainable();
  ASSERT_EQ(params.size(), others.size());
  for (size_t i = 0; i < params.size(); ++i)
    EXPECT_TRUE(same_bits(gradient_of(params[i].value), gradient_of(others[i].value)))
        << params[i].name;
}

TEST_P(HalfWeights, MergeAsTheirValuesInFullDoAndComeBack) {
  halve(at::kBFloat16);
  const Values before = everything(*model_, batch_);
  if (!merges()) return;
  other_->merge("default");
  EXPECT_TRUE(same(everything(*model_, batch_), everything(*wide_, batch_)));
  adaptation_->unmerge();
  EXPECT_TRUE(same(everything(*model_, batch_), before));
}

INSTANTIATE_TEST_SUITE_P(Every, HalfWeights, ::testing::ValuesIn(every_case()), case_name);

// The word table may be the output matrix as well: looked up in one place, multiplied by in
// another.
TEST(HalfWeightsOfLanguageModels, LossAndGradientsAreThoseOfTheirValuesInFull) {
  for (const char* name : {"llama", "t5", "bert"}) {
    HeadRequest head;
    head.kind = std::string(name) == "bert" ? HeadKind::MaskedLm : HeadKind::Lm;
    const std::unique_ptr<Model> model = model_of(name, head, kernels::DType::BF16),
                                 wide = model_of(name, head, kernels::DType::BF16);
    halve_weights(*model, *wide, at::kBFloat16);
    const Batch batch = batch_of(*model, {5, 1, 7});
    const Registry<Tuner> registry = methods();
    Adaptation adaptation(*model, registry, 1), other(*wide, registry, 1);
    for (Adaptation* each : {&adaptation, &other}) {
      each->add("default", {"lora", Json{{"rank", 2}}});
      disturb(*each);
    }
    EXPECT_TRUE(same(everything(*model, batch), everything(*wide, batch))) << name;
    backward(loss(*model, batch, &adaptation));
    backward(loss(*wide, batch, &other));
    const std::vector<Param> params = adaptation.trainable(), others = other.trainable();
    for (size_t i = 0; i < params.size(); ++i)
      EXPECT_TRUE(same_bits(gradient_of(params[i].value), gradient_of(others[i].value)))
          << name << " " << params[i].name;
  }
}

}  // namespace half_weights_test
}  // namespace attune
