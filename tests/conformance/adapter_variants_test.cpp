// The adapter-like methods beyond their `tiny` options: other forms, places, norms and scales, on
// every architecture.
#include "core/attachment.h"
#include "methods.h"
#include "tensor/autograd.h"
#include "train/adapter_files.h"

namespace attune {
namespace adapter_variants_test {

using namespace tiny;

struct Variant {
  const char *method, *options;
};
const std::vector<Variant> kVariants{
    {"adapter", "{placement: pfeiffer, size: 3, activation: gelu}"},
    {"adapter", "{size: 3, scaling: learnable, layer_norm: in, activation: silu, dropout: 0.2}"},
    {"adapter", "{size: 3, layer_norm: out, init: lora, activation: tanh}"},
    {"adapter", "{placement: pfeiffer, size: 3, drop_layers: 1, activation: gelu}"},
    {"parallel_adapter",
     "{sites: [\"*.self.heads\", \"*.self.out\", \"*.ffn.out\"], size: 3, scaling: learnable, "
     "activation: gelu, dropout: 0.2}"},
    {"parallel_adapter", "{size: 3, residual: true, layer_norm: out, activation: gelu}"},
    {"compacter", "{divisions: 2, size: 4, rank: 0, share_rule: false, rule_std: 0.3}"},
    {"compacter", "{divisions: 4, size: 4, rule_std: 0.3, layer_norm: in}"},
    {"conv_adapter", "{form: convpass, size: 3}"},
    {"conv_adapter",
     "{size: 3, kernel: 5, norm: none, insertion: serial, causal: \"true\", dropout: 0.2}"},
    {"conv_adapter", "{size: 3, kernel: 31, norm: layer, init: random}"},
    {"head_offset", "{}"},
    {"head_offset", "{heads: all, component: scale}"},
    {"loreft", "{}"},
    {"loreft", "{form: direft, rank: 2, activation: gelu, dropout: 0.3}"},
    {"mh_parallel_adapter", "{size: 2, layer_norm: true, activation: gelu}"},
    {"hyper_adapter",
     "{form: plain, size: 3, code: 4, hidden: 5, task_size: 3, layer_size: 2, position_size: 2, "
     "scaling: 0.3}"},
    {"hyper_adapter",
     "{form: lite, size: 4, base_width: 8, rank: 2, code: 4, hidden: 5, task_size: 3, scaling: "
     "0.3}"},
    {"propetl", "{form: lora, size: 3}"},
    {"propetl", "{form: prefix, size: 3}"},
    {"propetl",
     "{size: 3, layer_norm: in, scaling: learnable, activation: gelu, sites: "
     "\"*.{self,ffn}.out\"}"},
};

class AdapterVariants : public ::testing::TestWithParam<std::tuple<std::string, size_t>> {
 protected:
  AdapterVariants() : registry_(methods()), variant_(kVariants[std::get<1>(GetParam())]) {
    model_ = new_model(kernels::DType::F64);
    batch_ = batch_of(*model_, {5, 1, 7, 3});
    spec_ = {variant_.method, parse_yaml(variant_.options, "options").to_json()};
    adaptation_ = adapted(*model_, 0.1);
  }
  std::unique_ptr<Model> new_model(kernels::DType type) const {
    HeadRequest head;
    head.kind = HeadKind::Sequence;
    head.labels = 3;
    return model_of(std::get<0>(GetParam()), head, type);
  }
  std::unique_ptr<Adaptation> adapted(Model& model, double deviation) const {
    std::unique_ptr<Adaptation> result = std::make_unique<Adaptation>(model, registry_, 1);
    result->add("default", spec_);
    disturb(*result, deviation);
    return result;
  }

  Registry<Tuner> registry_;
  Variant variant_;
  TunerSpec spec_;
  std::unique_ptr<Model> model_;
  Batch batch_;
  std::unique_ptr<Adaptation> adaptation_;  // goes before the model it is attached to
};

TEST_P(AdapterVariants, GradientsAreThoseOfFiniteDifferences) {
  SCOPED_TRACE(variant_.options);
  check_gradients(*model_, *adaptation_, batch_, 1);
  check_gradients(*model_, *adaptation_, training(batch_), 0);
}

TEST_P(AdapterVariants, PackedEqualsOneByOne) {
  SCOPED_TRACE(variant_.options);
  for (const Batch& batch : {batch_, training(batch_)}) {
    const Tensor packed = logits(*model_, batch);
    for (int64_t b = 0; b < packed.size(0); ++b)
      EXPECT_LE(distance(logits(*model_, single(*model_, batch, b)), packed.slice(0, b, b + 1)),
                1e-12);
  }
}

TEST_P(AdapterVariants, TheDeclaredCountIsTheCountedOneAndTheLossFalls) {
  SCOPED_TRACE(variant_.options);
  int64_t trainable = 0;
  for (const Param& param : adaptation_->trainable()) trainable += param.value.numel();
  std::set<int> touched;
  for (const Recorder* recorder : adaptation_->recorders("default")) {
    for (const Owned& owned : recorder->owned()) touched.insert(owned.site);
    for (const std::pair<int, Edit>& edit : recorder->edits()) touched.insert(edit.first);
  }
  std::vector<Site> sites;
  for (const int id : touched)
    if (id >= 0) sites.push_back(model_->sites()[static_cast<size_t>(id)]);
  const Entry<Tuner>& entry = registry_.at(variant_.method);
  const Options options(entry.options, Node::from_json(spec_.options, {"test", 0, 0}), "test");
  EXPECT_EQ(entry.count(sites, options), trainable);
  const std::pair<double, double> losses = train(*model_, *adaptation_, batch_, 10, 0.005);
  EXPECT_LT(losses.second, losses.first);
}

TEST_P(AdapterVariants, SavedAndLoadedIsExact) {
  SCOPED_TRACE(variant_.options);
  const Folder folder;
  save_adapter(*adaptation_, "default", {}, folder.file("adapter"));
  const std::unique_ptr<Model> other = new_model(kernels::DType::F64);
  Adaptation loaded(*other, registry_, 9);
  load_adapter(loaded, "default", folder.file("adapter"), "");
  EXPECT_TRUE(same(everything(*other, batch_), everything(*model_, batch_)));
}

TEST_P(AdapterVariants, InBf16TheLogitsAreNearAndTheGradientsFinite) {
  SCOPED_TRACE(variant_.options);
  const std::unique_ptr<Model> narrow = new_model(kernels::DType::BF16),
                               wide = new_model(kernels::DType::F32);
  const std::unique_ptr<Adaptation> in_narrow = adapted(*narrow, 0.02),
                                    in_wide = adapted(*wide, 0.02);
  EXPECT_LE(distance(logits(*narrow, batch_), logits(*wide, batch_)), 0.15);
  backward(loss(*narrow, training(batch_), in_narrow.get()));
  for (const Param& param : in_narrow->trainable()) {
    ASSERT_TRUE(param.value.grad().defined()) << param.name;
    EXPECT_TRUE(param.value.grad().isfinite().all().item<bool>()) << param.name;
  }
}

std::string variant_name(const ::testing::TestParamInfo<std::tuple<std::string, size_t>>& info) {
  const size_t number = std::get<1>(info.param);
  return format("{}_{}_{}", std::get<0>(info.param), kVariants[number].method, number);
}

/// Statistics and gradients of a serial adapter with a batch norm after one pass.
Values after_one_pass(const std::string& insertion, int recompute) {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  const std::unique_ptr<Model> model =
      model_of("bert", head, kernels::DType::F64, Json::object(), recompute);
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default",
                 {"conv_adapter",
                  Json{{"size", 3}, {"kernel", 3}, {"norm", "batch"}, {"insertion", insertion}}});
  disturb(adaptation);
  backward(loss(*model, training(batch_of(*model, {5, 2, 7})), &adaptation), recompute != 0);
  Values result = copies(adaptation, "default");
  for (const Param& param : adaptation.trainable())
    result["gradient of " + param.name] = param.value.grad().clone();
  return result;
}

TEST(ConvAdapterStatistics, ARecomputedPassIsCountedOnce) {
  for (const char* insertion : {"serial", "parallel"}) {
    const Values kept = after_one_pass(insertion, 0), again = after_one_pass(insertion, -1);
    ASSERT_EQ(again.size(), kept.size());
    for (const Values::value_type& entry : kept)
      EXPECT_LE(distance(again.at(entry.first), entry.second), 1e-13)
          << insertion << " " << entry.first;
  }
}

INSTANTIATE_TEST_SUITE_P(Every, AdapterVariants,
                         ::testing::Combine(::testing::ValuesIn(architecture_names()),
                                            ::testing::Range(size_t{0}, kVariants.size())),
                         variant_name);

}  // namespace adapter_variants_test
}  // namespace attune
