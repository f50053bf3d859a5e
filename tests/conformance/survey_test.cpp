// Exact statements about the methods that the survey of Xu et al. 2023 (arXiv 2312.12148) compares.
#include <set>

#include "base/text.h"
#include "methods.h"

namespace attune {
namespace survey_test {

using namespace tiny;

std::unique_ptr<Model> classifier(const std::string& architecture, kernels::DType type) {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of(architecture, head, type);
}

std::unique_ptr<Adaptation> with(Model& model, const Registry<Tuner>& registry,
                                 const std::vector<TunerSpec>& specs) {
  std::unique_ptr<Adaptation> adaptation = std::make_unique<Adaptation>(model, registry, 1);
  for (const TunerSpec& spec : specs) adaptation->add("default", spec);
  return adaptation;
}

TEST(Survey, MethodsThatBeginAtZeroOrOneGiveTheBasesLogitsBitForBit) {
  const Registry<Tuner> registry = methods();
  const std::vector<TunerSpec> specs{
      {"lora", Json{{"rank", 2}}},
      {"adalora", Json{{"rank", 1}, {"init_rank", 2}}},
      {"ia3", Json::object()},
      {"parallel_adapter", Json{{"size", 3}}},
      {"diff_pruning", Json{{"density", 0.5}}},
  };
  for (const kernels::DType type :
       {kernels::DType::F64, kernels::DType::F32, kernels::DType::BF16}) {
    const std::unique_ptr<Model> model = classifier("bert", type);
    for (const bool train : {false, true}) {
      const Batch plain = batch_of(*model, {5, 1, 7, 3}), batch = train ? training(plain) : plain;
      const Tensor base = logits(*model, batch);
      for (const TunerSpec& spec : specs) {
        const std::unique_ptr<Adaptation> adaptation = with(*model, registry, {spec});
        EXPECT_TRUE(same_bits(logits(*model, batch), base)) << spec.method << " " << train;
      }
    }
  }
}

TEST(Survey, PromptsAndPrefixesOfLengthZeroAreTheBase) {
  const Registry<Tuner> registry = methods();
  for (const std::string architecture : {"bert", "llama"}) {
    const std::unique_ptr<Model> model = classifier(architecture, kernels::DType::F64);
    const Batch batch = batch_of(*model, {5, 1, 7, 3});
    const Tensor base = logits(*model, batch);
    for (const char* method : {"prompt", "prefix"}) {
      const std::unique_ptr<Adaptation> adaptation =
          with(*model, registry, {{method, Json{{"length", 0}}}});
      EXPECT_TRUE(same_bits(logits(*model, batch), base)) << architecture << " " << method;
    }
  }
}

TEST(Survey, BitFitChangesBiasVectorsAlone) {
  const Registry<Tuner> registry = methods();
  const std::unique_ptr<Model> model = classifier("bert", kernels::DType::F64);
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const std::unique_ptr<Adaptation> adaptation = with(*model, registry, {{"bias", Json::object()}});
  const Values before = copies(*adaptation, "default");
  train(*model, *adaptation, training(batch), 3, 0.01);
  int64_t moved = 0, biases = 0;
  for (const Site& site : model->sites())
    biases += site.kind == SiteKind::Weight && site.bias ? site.out : 0;
  for (const Param& param : adaptation->trainable()) {
    EXPECT_EQ(param.value.dim(), 1) << param.name;
    EXPECT_TRUE(ends_with(param.name, "/bias")) << param.name;
    moved += param.value.numel();
  }
  EXPECT_EQ(moved, biases);
  EXPECT_FALSE(same(copies(*adaptation, "default"), before));
}

TEST(Survey, BitFitOnAModelWithoutBiasesIsAReadableError) {
  const Registry<Tuner> registry = methods();
  const std::unique_ptr<Model> model = classifier("llama", kernels::DType::F64);
  Adaptation adaptation(*model, registry, 1);
  EXPECT_EQ(error_text(ErrorCode::BadInput,
                       [&] {
                         adaptation.add("default", {"bias", Json{{"sites", "*norm"}}});
                       }),
            "bias: none of the chosen sites has a bias in this model");
}

TEST(Survey, LoraAdapterAndBitFitTogetherTrainWhatEachTrainsAlone) {
  const Registry<Tuner> registry = methods();
  const std::unique_ptr<Model> model = classifier("bert", kernels::DType::F64);
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const std::vector<TunerSpec> specs{{"lora", Json{{"rank", 2}}},
                                     {"adapter", Json{{"size", 3}, {"placement", "pfeiffer"}}},
                                     {"bias", Json::object()}};
  const auto names = [](const Adaptation& adaptation) {
    std::multiset<std::string> result;  // "lora/enc.0.self.q/down"
    for (const Param& param : adaptation.trainable())
      result.insert(param.name.substr(param.name.find('.') + 1));
    return result;
  };
  std::multiset<std::string> expected;
  for (const TunerSpec& spec : specs) {
    const std::multiset<std::string> alone = names(*with(*model, registry, {spec}));
    expected.insert(alone.begin(), alone.end());
  }
  const std::unique_ptr<Adaptation> all = with(*model, registry, specs);
  EXPECT_EQ(names(*all), expected);
  const Values before = copies(*all, "default");
  train(*model, *all, training(batch), 3, 0.01);
  for (const Values::value_type& entry : copies(*all, "default"))
    if (!ends_with(entry.first, ".k/bias")) {  // adds the same to every score: no gradient
      EXPECT_FALSE(same_bits(entry.second, before.at(entry.first))) << entry.first;
    }
}

}  // namespace survey_test
}  // namespace attune
