// Reading PEFT's directories: which modules, and what is refused.
#include "unit/exchange/peft_fixture.h"

namespace attune {
namespace peft_load_test {

namespace fs = std::filesystem;

const std::string kQuery = "base_model.model.bert.encoder.layer.0.attention.self.query.";

TEST(PeftLoad, LeavesTheModelAsItWasWhenTheSetIsRemoved) {
  PeftFixture fixture;
  const std::vector<Tensor> before = fixture.logits();
  fixture.load(golden("bert", "lora-patterns"));
  fixture.adaptation->remove("default");
  expect_equal(before, fixture.logits());
}

TEST(PeftLoad, TakesTargetModulesAsAnExpression) {
  const TempFolder folder;
  copy_adapter("lora-layers-pattern", folder.path(),
               {{"target_modules", ".*layer\\.0.*self\\.(query|value)"},
                {"layers_to_transform", nullptr},
                {"layers_pattern", nullptr}});
  PeftFixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected_logits("bert", "lora-layers-pattern"), 3e-5);
}

TEST(PeftLoad, TakesAllLinear) {
  const TempFolder folder;
  copy_adapter("lora-patterns", folder.path(), {{"target_modules", "All-Linear"}});
  PeftFixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected_logits("bert", "lora-patterns"), 3e-5);
}

TEST(PeftLoad, HonoursExcludeModules) {
  const TempFolder folder;
  copy_adapter("vera", folder.path(),
               {{"target_modules", {"query", "value", "key", "intermediate.dense"}},
                {"exclude_modules", {"key"}}});
  PeftFixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected_logits("bert", "vera"), 3e-5);
}

TEST(PeftLoad, TakesNamesWithoutTheBaseModelsPrefix) {
  const TempFolder folder;
  copy_adapter("lora", folder.path(), Json::object());
  NamedTensors tensors = adapter_tensors(folder.path());
  for (std::pair<std::string, Tensor>& entry : tensors)
    if (const size_t at = entry.first.find("bert."); at != std::string::npos)
      entry.first.erase(at, 5);
  write_adapter_tensors(folder.path(), tensors);
  PeftFixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected_logits("bert", "lora"), 3e-5);
}

TEST(PeftLoad, ReadsTheCard) {
  EXPECT_TRUE(is_peft(golden("bert", "lora")));
  EXPECT_FALSE(is_peft(golden("bert", "base")));
  for (const char* name : {"lora", "prompt-tuning"}) {
    const PeftCard card = read_peft_card(golden("bert", name));
    EXPECT_EQ(card.base_model, "base");
    EXPECT_EQ(card.task_type, "SEQ_CLS");
    EXPECT_EQ(card.head.kind, HeadKind::Sequence);
    EXPECT_EQ(card.head.labels, 3);
  }
  expect_text(error_text(ErrorCode::NotFound, [] { read_peft_card("/nowhere"); }),
              "/nowhere/adapter_config.json");
  const TempFolder folder;
  folder.write("adapter_config.json", "{}");
  expect_text(error_text(ErrorCode::Corrupt, [&] { read_peft_card(folder.path()); }), "peft_type");
}

struct Refusal {
  const char* adapter;
  Json change;
  ErrorCode code;
  std::string text;
};

/// Loading a changed golden adapter fails so, and leaves nothing attached.
void expect_refusals(const std::vector<Refusal>& cases) {
  for (const Refusal& refusal : cases) {
    const TempFolder folder;
    copy_adapter(refusal.adapter, folder.path(), refusal.change);
    PeftFixture fixture;
    expect_text(error_text(refusal.code, [&] { fixture.load(folder.path()); }), refusal.text);
    EXPECT_TRUE(fixture.adaptation->sets().empty());
  }
}

TEST(PeftLoad, RefusesFieldsThatItWouldComputeDifferently) {
  expect_refusals({
      {"lora-dora", {{"lora_bias", true}}, ErrorCode::Unsupported, "\"lora_bias\" is true"},
      {"lora",
       {{"target_parameters", {"experts"}}},
       ErrorCode::Unsupported,
       "\"target_parameters\" is [\"experts\"]; this build computes LORA without it"},
      {"lora", {{"of_the_future", 3}}, ErrorCode::Unsupported, "\"of_the_future\" is 3"},
      {"ia3", {{"lora_alpha", 3}}, ErrorCode::Unsupported, "this build computes IA3 without it"},
      {"lora",
       {{"init_lora_weights", "pissa"}},
       ErrorCode::Unsupported,
       "\"init_lora_weights\" is \"pissa\""},
      {"lora",
       {{"peft_type", "XLORA"}},
       ErrorCode::Unsupported,
       "\"peft_type\" is \"XLORA\"; this build reads ADALORA, BOFT, C3A, FOURIERFT, HRA, IA3"},
      {"lora",
       {{"bias", "some"}},
       ErrorCode::Unsupported,
       "\"bias\" is \"some\"; known: none, all, lora_only"},
      {"ia3", {{"bias", "all"}}, ErrorCode::Unsupported, "\"bias\" is \"all\""},
      {"miss",
       {{"init_weights", "other"}},
       ErrorCode::Unsupported,
       "\"init_weights\" is \"other\""},
      {"oft", {{"r", 3}}, ErrorCode::Unsupported, "of r and oft_block_size exactly one is zero"},
      {"fourierft",
       {{"random_loc_seed", nullptr}},
       ErrorCode::Unsupported,
       "\"random_loc_seed\" is null; the positions of the entries were drawn without a seed"},
      {"lora",
       {{"target_modules", "("}},
       ErrorCode::Unsupported,
       "target_modules: the expression \"(\" is not understood"},
  });
}

TEST(PeftLoad, RefusesConfigsThatDoNotFitTheTensors) {
  expect_refusals({
      {"lora",
       {{"r", "four"}},
       ErrorCode::Corrupt,
       "\"r\" is \"four\", which is not what PEFT writes there"},
      {"lora", {{"lora_alpha", "x"}}, ErrorCode::Corrupt, "\"lora_alpha\" is \"x\""},
      {"lora", {{"use_rslora", 1}}, ErrorCode::Corrupt, "\"use_rslora\" is 1"},
      {"lora", {{"peft_type", 1}}, ErrorCode::Corrupt, "\"peft_type\" is 1"},
      {"lora", {{"target_modules", 1}}, ErrorCode::Corrupt, "\"target_modules\" is 1"},
      {"lora", {{"target_modules", {1}}}, ErrorCode::Corrupt, "\"target_modules\" is [1]"},
      {"lora", {{"layers_to_transform", "x"}}, ErrorCode::Corrupt, "\"layers_to_transform\" is"},
      {"lora", {{"layers_to_transform", {"x"}}}, ErrorCode::Corrupt, "is [\"x\"]"},
      {"lora", {{"rank_pattern", 4}}, ErrorCode::Corrupt, "\"rank_pattern\" is 4"},
      {"lora", {{"rank_pattern", {{"query", "x"}}}}, ErrorCode::Corrupt, "\"rank_pattern\" is"},
      {"lora",
       {{"r", 5}},
       ErrorCode::Corrupt,
       "has shape [4, 12], but config and model need floating-point [5, 12]"},
      {"lora", {{"target_modules", {"query"}}}, ErrorCode::Corrupt, "target_modules of"},
      {"lora",
       {{"target_modules", {"query", "value", "intermediate.dense", "key"}}},
       ErrorCode::Corrupt,
       "self.key.lora_A.weight is missing"},
      {"adalora-pruned", {{"rank_pattern", nullptr}}, ErrorCode::Corrupt, "need floating-point"},
      {"adalora-pruned", {{"init_r", 5}}, ErrorCode::Corrupt, "\"rank_pattern\" is"},
      {"vera-drawn",
       {{"save_projection", true}},
       ErrorCode::Corrupt,
       "tensor base_model.vera_A is missing"},
      {"lokr", {{"decompose_factor", 2}}, ErrorCode::Corrupt, "does not fit the method lokr"},
      {"oft", {{"oft_block_size", 6}}, ErrorCode::Corrupt, "does not fit the method oft"},
      {"prefix-tuning",
       {{"num_virtual_tokens", 4}},
       ErrorCode::Corrupt,
       "need floating-point [4, 48]"},
      {"c3a", {{"block_size", 0}}, ErrorCode::Corrupt, "\"block_size\" is 0"},
      {"c3a",
       {{"block_size_pattern", {{"query", -4}}}},
       ErrorCode::Corrupt,
       "\"block_size_pattern\" is {\"query\":-4}"},
      {"miss-bat", {{"r", 0}}, ErrorCode::Corrupt, "\"r\" is 0"},
      {"vera-drawn", {{"r", -1}}, ErrorCode::Corrupt, "\"r\" is -1"},
      {"adalora", {{"init_r", -1}}, ErrorCode::Corrupt, "\"init_r\" is -1"},
      {"prefix-tuning", {{"num_layers", 3}}, ErrorCode::Corrupt, "\"num_layers\" is 3"},
  });
}

/// Loading a golden adapter whose tensors were changed fails with this text.
std::string refusal_of(const std::string& adapter, ErrorCode code,
                       const std::function<void(NamedTensors&)>& change) {
  const TempFolder folder;
  copy_adapter(adapter, folder.path(), Json::object());
  NamedTensors tensors = adapter_tensors(folder.path());
  change(tensors);
  write_adapter_tensors(folder.path(), tensors);
  PeftFixture fixture;
  const std::string text = error_text(code, [&] { fixture.load(folder.path()); });
  EXPECT_TRUE(fixture.adaptation->sets().empty());
  return text;
}

std::function<void(NamedTensors&)> without(const std::string& key) {
  return [key](NamedTensors& tensors) {
    std::erase_if(tensors, [&](const auto& entry) { return entry.first == key; });
  };
}
std::function<void(NamedTensors&)> with(const std::string& key, const Tensor& value) {
  return [=](NamedTensors& tensors) {
    without(key)(tensors);
    tensors.emplace_back(key, value);
  };
}

TEST(PeftLoad, RefusesMissingExtraAndMisshapenTensors) {
  expect_text(refusal_of("lora", ErrorCode::Corrupt, without(kQuery + "lora_B.weight")),
              "self.query.lora_B.weight is missing");
  expect_text(refusal_of("lora", ErrorCode::Corrupt,
                         with(kQuery + "lora_magnitude_vector", at::ones({12}))),
              "query.lora_magnitude_vector has no part in the adapter that");
  expect_text(refusal_of("lora", ErrorCode::Unsupported, with(kQuery + "lora_E", at::ones({12}))),
              "query.lora_E is of a kind that is not read here");
  expect_text(refusal_of("ia3", ErrorCode::Corrupt,
                         with("base_model.model.bert.encoder.layer.0.attention.self.key.ia3_l",
                              at::ones({1, 12}))),
              "has shape [1, 12], but config and model need floating-point [12, 1]");
  expect_text(refusal_of("shira", ErrorCode::Corrupt,
                         with(kQuery + "shira_indices", at::full({2, 24}, 12, at::kInt))),
              "query.shira_indices: it names positions outside the weight");
  expect_text(refusal_of("loha", ErrorCode::Corrupt,
                         with(kQuery + "hada_w1_a", at::ones({12, 2}, at::kInt))),
              "need floating-point [12, 2]");
  expect_text(
      refusal_of("boft", ErrorCode::Corrupt, with(kQuery + "boft_R", at::zeros({1, 3, 4, 3}))),
      "query.boft_R: its blocks are not square");
  expect_text(refusal_of("lokr", ErrorCode::Corrupt, without(kQuery + "lokr_w1")),
              "does not fit the method lokr: enc.0.self.q/w1 is missing");
  const TempFolder folder;
  copy_adapter("lora", folder.path(), {{"target_modules", "all-linear"}});
  write_adapter_tensors(folder.path(), {{"base_model.model.classifier.bias", at::ones({3})}});
  PeftFixture fixture;
  expect_text(error_text(ErrorCode::Corrupt, [&] { fixture.load(folder.path()); }),
              "self.query.lora_A.weight is missing");
}

TEST(PeftLoad, RefusesTensorsOfOtherModules) {
  expect_text(refusal_of("lora", ErrorCode::BadInput,
                         with("base_model.model.bert.nowhere.weight", at::ones({12}))),
              "a module that this model does not have");
  expect_text(
      refusal_of("lora", ErrorCode::BadInput,
                 with("base_model.model.bert.embeddings.word_embeddings.bias", at::ones({12}))),
      "is a bias, but that module of this model has none");
  expect_text(refusal_of("lora", ErrorCode::Corrupt,
                         with("base_model.model.classifier.weight", at::ones({4, 12}))),
              "has shape [4, 12], but the model needs floating-point [3, 12]");
  expect_text(
      refusal_of("lora", ErrorCode::Unsupported,
                 with("base_model.model.bert.embeddings.LayerNorm.lora_A.weight", at::ones({2}))),
      "changes a module of a kind that LORA does not");
  expect_text(refusal_of("lora", ErrorCode::Unsupported, with("prompt_embeddings", at::ones({2}))),
              "does not begin with \"base_model.model.\", as those of LORA do");
}

TEST(PeftLoad, RefusesDoraOfAnEmbedding) {
  const TempFolder folder;
  copy_adapter("lora-embedding", folder.path(), {{"use_dora", true}});
  PeftFixture fixture;
  expect_text(error_text(ErrorCode::Unsupported, [&] { fixture.load(folder.path()); }),
              "DoRA of the embedding bert.embeddings.word_embeddings is not computed here");
}

TEST(PeftLoad, RefusesDirectoriesWithoutSafetensors) {
  const TempFolder folder;
  copy_adapter("lora", folder.path(), Json::object());
  fs::remove(folder.file("adapter_model.safetensors"));
  PeftFixture fixture;
  expect_text(error_text(ErrorCode::NotFound, [&] { fixture.load(folder.path()); }), "is missing");
  folder.write("adapter_model.bin", "x");
  expect_text(error_text(ErrorCode::Unsupported, [&] { fixture.load(folder.path()); }),
              "safe_serialization=True");
}

TEST(PeftLoad, TakesAnEmbeddingThatPeftSavedBesideItsUpdate) {
  const TempFolder folder;
  copy_adapter("lora-embedding", folder.path(), Json::object());
  PeftFixture plain, changed;
  const std::string key = "base_model.model.bert.embeddings.word_embeddings.base_layer.weight";
  const Tensor base = plain.model().slot(plain.model().site("enc.embed.tok")).weight;
  NamedTensors tensors = adapter_tensors(folder.path());
  tensors.emplace_back(key, base.clone());
  write_adapter_tensors(folder.path(), tensors);
  plain.load(folder.path());
  expect_near(plain.logits(), expected_logits("bert", "lora-embedding"), 3e-5);
  EXPECT_EQ(plain.adaptation->specs("default").size(), 2u);  // lora, and full for the classifier
  tensors.back().second = base + 0.5;
  write_adapter_tensors(folder.path(), tensors);
  changed.load(folder.path());
  bool trained = false;
  for (const auto& entry : changed.adaptation->tensors("default"))
    trained = trained || (ends_with(entry.first, "enc.embed.tok/weight") &&
                          at::allclose(entry.second, base + 0.5));
  EXPECT_TRUE(trained);
}

}  // namespace peft_load_test
}  // namespace attune
