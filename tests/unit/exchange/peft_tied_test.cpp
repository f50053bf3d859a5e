// Adapters of models whose output shares its tensor with the token table: PEFT trains a copy of
// each module. (What they compute: peft_golden_test.cpp.)
#include "unit/exchange/peft_fixture.h"

namespace attune {
namespace peft_tied_test {

const std::string kTable = "base_model.model.model.embed_tokens.weight";
const std::string kOutput = "base_model.model.lm_head.weight";

TEST(PeftTied, MergedModelsComputeTheSame) {
  for (const auto& [family, adapter] :
       {std::pair("llama-tied", "lora-saved-embedding"),
        std::pair("llama-tied", "lora-saved-output"), std::pair("llama-tied", "lora-saved-both"),
        std::pair("t5", "lora-saved-output")}) {
    PeftFixture fixture(family);
    const std::vector<Tensor> base = fixture.logits();
    fixture.load(golden(family, adapter));
    fixture.adaptation->merge("default");
    expect_near(fixture.logits(), expected_logits(family, adapter), 3e-5);
    const TempFolder folder;
    write_model(fixture.model(), golden(family, "base"), folder.path(), Json::object());
    EXPECT_EQ(read_json(folder.file("config.json")).at("tie_word_embeddings"), false);
    fixture.adaptation->remove("default");
    expect_equal(fixture.logits(), base);
    PeftFixture merged(family);
    merged.adaptation.reset();
    merged.loaded = load_model(folder.path(), {});
    expect_near(merged.logits(), expected_logits(family, adapter), 3e-5);
  }
}

TEST(PeftTied, MergedAndTiedBothNamesOfTheTensorAreWritten) {
  PeftFixture fixture("llama-tied");
  fixture.load(golden("llama-tied", "lora-tied"));
  fixture.adaptation->merge("default");
  const TempFolder folder, twice;
  write_model(fixture.model(), golden("llama-tied", "base"), folder.path(), Json::object());
  EXPECT_EQ(read_json(folder.file("config.json")).at("tie_word_embeddings"), true);
  // A base that holds the tensor under both names.
  std::filesystem::copy(
      golden("llama-tied", "base"), twice.path(),
      std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
  NamedTensors tensors;
  {
    const SafetensorsFile file(golden("llama-tied", "base/model.safetensors"));
    for (const TensorInfo& info : file.tensors())
      tensors.emplace_back(info.name, file.tensor(info.name).clone());
    tensors.emplace_back("lm_head.weight", file.tensor("model.embed_tokens.weight").clone());
  }
  save_safetensors(twice.file("model.safetensors"), tensors);
  write_model(fixture.model(), twice.path(), folder.path(), Json::object());
  PeftFixture merged("llama-tied");
  merged.adaptation.reset();
  merged.loaded = load_model(folder.path(), {});
  expect_near(merged.logits(), expected_logits("llama-tied", "lora-tied"), 3e-5);
}

TEST(PeftTied, PartedTensorsSurviveOurOwnManifest) {
  PeftFixture first("llama-tied"), second("llama-tied");
  first.load(golden("llama-tied", "lora-saved-both"));
  second.adaptation->restore("default", first.adaptation->manifest("default"),
                             first.adaptation->tensors("default"), "test");
  expect_equal(first.logits(), second.logits());
}

/// Of a sum of squared logits, with respect to what the set trains: the sum over its tensors.
Tensor gradient(const Json& options) {
  PeftFixture fixture("llama-tied", kernels::DType::F64);
  fixture.add("full", options);
  Batch batch;
  Stream& stream = batch.streams["dec"];
  stream.ids = at::tensor(std::vector<int>{3, 9, 27, 9}, at::kInt);
  stream.rows = RowIndex::from_lengths({4});
  const std::vector<Param> params = fixture.adaptation->trainable();
  backward(fixture.model().forward(batch, {}).head->logits({}).square().sum());
  Tensor sum;
  for (const Param& param : params) {
    const Tensor part = gradient_of(param.value);
    EXPECT_GT(part.abs().max().item<double>(), 0) << param.name;
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

TEST(PeftTied, GradientsOfTheCopiesAddUpToThatOfTheSharedTensor) {
  const Json sites = {"dec.embed.tok", "head.proj"};
  const Tensor shared = gradient({{"sites", sites}});
  const Tensor apart = gradient({{"sites", sites}, {"tied", false}});
  EXPECT_LE((shared - apart).abs().max().item<double>(), 1e-12 * shared.abs().max().item<double>());
}

TEST(PeftTied, ATensorTrainedForBothIsWrittenForEach) {
  PeftFixture first("llama-tied"), second("llama-tied");
  first.add("lora", {{"sites", {"*.self.q"}}});
  first.add("full", {{"sites", {"*.embed.tok"}}});
  first.disturb();
  const TempFolder folder;
  first.save(folder.path(), "lm");
  const SafetensorsFile file(folder.file("adapter_model.safetensors"));
  ASSERT_TRUE(file.has(kTable) && file.has(kOutput));
  EXPECT_TRUE(at::equal(file.tensor(kTable), file.tensor(kOutput)));
  EXPECT_EQ(read_json(folder.file("adapter_config.json")).at("modules_to_save"),
            Json({"lm_head", "model.embed_tokens"}));
  second.load(folder.path());
  expect_equal(first.logits(), second.logits());
}

TEST(PeftTied, ATableOfTwoStacksIsNotWritten) {
  PeftFixture fixture("t5");
  fixture.add("lora", {{"sites", {"*.self.q"}}});
  fixture.add("full", {{"sites", {"enc.embed.tok"}}});
  const TempFolder folder;
  expect_text(error_text(ErrorCode::Unsupported, [&] { fixture.save(folder.path(), "lm"); }),
              "it trains shared, which serves 2 layers: PEFT would train a copy for each of them");
}

TEST(PeftTied, UpdatesThatAreTiedAreRefused) {
  const TempFolder folder;
  copy_adapter("lora-embedding", folder.path(), {{"ensure_weight_tying", true}});
  PeftFixture fixture;
  expect_text(error_text(ErrorCode::Unsupported, [&] { fixture.load(folder.path()); }),
              "\"ensure_weight_tying\" is true; it ties the update of "
              "bert.embeddings.word_embeddings to another");
}

TEST(PeftTied, TokensOutsideTheTableAreRefused) {
  const auto refusal = [](const Json& tokens, ErrorCode code) {
    const TempFolder folder;
    std::filesystem::copy(golden("llama-tied", "lora-tokens"), folder.path(),
                          std::filesystem::copy_options::overwrite_existing |
                              std::filesystem::copy_options::recursive);
    Json config = read_json(folder.file("adapter_config.json"));
    config["trainable_token_indices"] = tokens;
    folder.write("adapter_config.json", config.dump());
    PeftFixture fixture("llama-tied");
    return error_text(folder, code, [&] { fixture.load(folder.path()); });
  };
  EXPECT_EQ(refusal({7, 3, 50}, ErrorCode::Corrupt),
            "adapter_config.json: trainable_token_indices names 50, but model.embed_tokens has 50 "
            "rows");
  expect_text(refusal({7, 3}, ErrorCode::Corrupt),
              "has shape [3, 16], but the model needs floating-point [2, 16]");
  expect_text(refusal({{"embed_tokens", "x"}}, ErrorCode::Corrupt),
              "\"trainable_token_indices\" is \"x\", which is not what PEFT writes there");
}

}  // namespace peft_tied_test
}  // namespace attune
