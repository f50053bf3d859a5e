// Edits that fold into biases which the base has not: its config.json can turn them on.
#include "arch/load.h"
#include "decode/generate.h"
#include "io/checkpoint.h"
#include "methods.h"
#include "support/temp_folder.h"

namespace attune {
namespace merged_biases_test {

using namespace tiny;

HeadRequest words() {
  HeadRequest head;
  head.kind = HeadKind::Lm;
  return head;
}

TEST(MergedBiases, OffsetsOfHeadsAreWrittenAsBiasesOfTheOutputProjection) {
  at::NoGradGuard no_grad;
  const std::unique_ptr<Model> model =
      model_of("llama", words(), kernels::DType::F32, Json{{"attention_bias", false}});
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", tiny_spec(registry.at("head_offset")));
  disturb(adaptation, 0.5);
  const std::vector<std::vector<int32_t>> prompts{{5, 9, 20, 3}, {7}};
  GenerateOptions options;
  options.max_new_tokens = 8;
  const Batch batch = batch_of(*model, {5, 1, 7});
  const Tensor expected = model->forward(batch, {}).head->logits(Tensor());
  const std::vector<std::vector<int32_t>> text = generate(*model, prompts, options);
  adaptation.merge("default");
  EXPECT_LE(distance(model->forward(batch, {}).head->logits(Tensor()), expected), 1e-5);

  const TempFolder folder;
  write_model(*model, "", folder.file("merged"), Json{{"architectures", {"LlamaForCausalLM"}}});
  LoadOptions load;
  load.own_head = true;
  load.head = words();
  const LoadedModel merged = load_model(folder.file("merged"), load);
  EXPECT_TRUE(merged.report.lines().empty());
  EXPECT_TRUE(merged.model->config().at("attention_bias").get<bool>());
  EXPECT_FALSE(merged.model->config().value("mlp_bias", false));
  EXPECT_LE(distance(merged.model->forward(batch, {}).head->logits(Tensor()), expected), 1e-5);
  EXPECT_EQ(generate(*merged.model, prompts, options), text);
  // transformers gives biases to all four projections or to none.
  const Checkpoint checkpoint(folder.file("merged"));
  for (const char* part : {"q", "k", "v", "o"})
    EXPECT_TRUE(checkpoint.has(format("model.layers.0.self_attn.{}_proj.bias", part)));
  EXPECT_FALSE(checkpoint.has("model.layers.0.mlp.up_proj.bias"));

  adaptation.unmerge();
  EXPECT_FALSE(model->slot(model->site("dec.0.self.o")).bias.defined());
  EXPECT_TRUE(at::equal(model->forward(batch, {}).head->logits(Tensor()), expected));
}

TEST(MergedBiases, WithoutSuchAKeyThereIsNoPlaceForThem) {
  const std::unique_ptr<Model> model = model_of("t5", words(), kernels::DType::F32);
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*model, registry, 1);
  adaptation.add("default", tiny_spec(registry.at("head_offset")));
  disturb(adaptation, 0.5);
  try {
    adaptation.merge("default");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_NE(std::string(error.what()).find(".self.o has no bias that could hold it"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace merged_biases_test
}  // namespace attune
