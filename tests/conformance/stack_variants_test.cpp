// Transformers built directly from a StackSpec, for the choices that no architecture uses yet.
#include "methods.h"

namespace attune {
namespace stack_variants_test {

using namespace tiny;

struct Variant {
  const char* name;
  void (*change)(StackSpec&);
};

const Variant kVariants[] = {
    {"post_norm", [](StackSpec&) {}},
    {"pre_norm", [](StackSpec& s) { s.pre_norm = s.final_norm = true; }},
    {"rms_norm",
     [](StackSpec& s) {
       s.norm = kernels::NormKind::Rms;
       s.norm_bias = false;
     }},
    {"gated",
     [](StackSpec& s) {
       s.gated = true;
       s.activation = kernels::Activation::Silu;
     }},
    {"grouped_queries", [](StackSpec& s) { s.kv_heads = 2; }},
    {"one_key_head", [](StackSpec& s) { s.kv_heads = 1; }},
    {"causal", [](StackSpec& s) { s.causal = true; }},
    {"window", [](StackSpec& s) { s.window = 2; }},
    {"no_biases", [](StackSpec& s) { s.qkv_bias = s.out_bias = s.ffn_bias = false; }},
    {"wide_heads", [](StackSpec& s) { s.head_size = 6; }},
    {"no_positions",
     [](StackSpec& s) {
       s.positions = PositionScheme::None;
       s.types = 0;
       s.embed_norm = false;
     }},
    {"decoder_like",
     [](StackSpec& s) {
       s.pre_norm = s.final_norm = s.gated = s.causal = true;
       s.norm = kernels::NormKind::Rms;
       s.norm_bias = s.qkv_bias = s.out_bias = s.ffn_bias = s.embed_norm = false;
       s.kv_heads = 2;
       s.types = 0;
       s.activation = kernels::Activation::Silu;
     }},
};

std::unique_ptr<Model> build(const Variant& variant, kernels::DType type = kernels::DType::F64) {
  ModelSpec spec;
  StackSpec& s = spec.stacks.emplace_back();
  s.layers = 2;
  s.hidden = 16;
  s.heads = s.kv_heads = 4;
  s.head_size = 4;
  s.intermediate = 24;
  s.norm_eps = 1e-6;
  s.hidden_dropout = s.attention_dropout = 0.1;
  s.vocabulary = 40;
  s.types = 2;
  s.max_positions = 20;
  variant.change(s);
  spec.head.kind = HeadKind::Token;
  spec.head.labels = 5;
  std::unique_ptr<Model> model =
      std::make_unique<Transformer>(spec, Numerics{type}, Json::object());
  ordinary_weights(*model);
  return model;
}

class StackVariants : public ::testing::TestWithParam<Variant> {};

TEST_P(StackVariants, PackedEqualsOneByOne) {
  const std::unique_ptr<Model> model = build(GetParam());
  const Batch whole = batch_of(*model, {5, 1, 7, 3});
  for (const bool train : {false, true}) {
    const Batch batch = train ? training(whole) : whole;
    std::vector<Tensor> singles;
    for (int64_t b = 0; b < 4; ++b) singles.push_back(logits(*model, single(*model, batch, b)));
    EXPECT_LE(distance(at::cat(singles), logits(*model, batch)), 1e-12);
  }
}

TEST_P(StackVariants, EveryGradientIsThatOfFiniteDifferences) {
  const std::unique_ptr<Model> model = build(GetParam());
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", {"full", Json::object()});
  check_gradients(*model, adaptation, batch_of(*model, {4, 1, 6}), 2);
}

TEST_P(StackVariants, EveryMethodTrainsOnIt) {
  const Registry<Tuner> registry = methods();
  for (const Entry<Tuner>& entry : registry.all()) {
    SCOPED_TRACE(entry.name);
    const std::unique_ptr<Model> model = build(GetParam());
    const Batch batch = batch_of(*model, {5, 1, 7, 3});
    const Values before = everything(*model, batch);
    Adaptation adaptation(*model, registry, 1);
    adaptation.add("default", tiny_spec(entry));
    const std::pair<double, double> losses = train(*model, adaptation, batch, 10, 0.01);
    EXPECT_LT(losses.second, losses.first);
    adaptation.remove("default");
    EXPECT_TRUE(same(everything(*model, batch), before));
  }
}

TEST_P(StackVariants, SinglePrecisionAgrees) {
  const std::unique_ptr<Model> exact = build(GetParam()),
                               narrow = build(GetParam(), kernels::DType::F32);
  const Batch batch = batch_of(*exact, {5, 1, 7, 3});
  EXPECT_LE(distance(logits(*narrow, batch), logits(*exact, batch)), 3e-5);
}

INSTANTIATE_TEST_SUITE_P(All, StackVariants, ::testing::ValuesIn(kVariants),
                         [](const ::testing::TestParamInfo<Variant>& info) {
                           return std::string(info.param.name);
                         });

TEST(StackVariants, ACausalStackNeverLooksAhead) {
  const std::unique_ptr<Model> model = build(kVariants[6]);
  Batch batch = batch_of(*model, {8});
  const Tensor before = logits(*model, batch);
  Tensor ids = batch.streams["enc"].ids;
  int32_t* last = static_cast<int32_t*>(ids.data_ptr()) + 7;
  *last = *last == 1 ? 2 : 1;
  const Tensor after = logits(*model, batch);
  EXPECT_TRUE(same_bits(before.slice(0, 0, 7), after.slice(0, 0, 7)));
  EXPECT_FALSE(same_bits(before.slice(0, 7, 8), after.slice(0, 7, 8)));
}

}  // namespace stack_variants_test
}  // namespace attune
