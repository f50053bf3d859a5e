// Writing PEFT's directories from tuners of our own making.
#include "core/attachment.h"
#include "unit/exchange/peft_fixture.h"

namespace attune {
namespace peft_export_test {

namespace fs = std::filesystem;

/// What the written directories compute, each loaded as a set of its own, in their order.
std::vector<Tensor> logits_of(const PeftExport& written,
                              kernels::DType type = kernels::DType::F64) {
  PeftFixture fixture("bert", type);
  for (size_t i = 0; i < written.directories.size(); ++i)
    load_peft(*fixture.adaptation, fixture.model(), format("set{}", i), written.directories[i]);
  return fixture.logits();
}

std::string type_of(const std::string& directory) {
  return read_json(directory + "/adapter_config.json").at("peft_type").get<std::string>();
}

TEST(PeftExport, WritesTwoUpdatesOfOneProjectionAsOne) {
  PeftFixture first("bert", kernels::DType::F64);
  first.add("lora", {{"sites", {"*.self.q"}}, {"rank", 2}, {"alpha", 3}});
  first.add("lora", {{"sites", {"*.self.[qv]"}}, {"rank", 3}, {"alpha", 1}, {"dropout", 0.1}});
  first.add("head");
  first.disturb();
  const TempFolder folder;
  const PeftExport written = first.save(folder.path());
  const std::string notes = join(written.notes, "\n");
  expect_text(notes, "two updates of enc.0.self.q are written as one of rank 5");
  expect_text(notes, "different dropout; PEFT holds one value, 0.1 is written");
  expect_near(logits_of(written), first.logits(), 1e-6);
}

/// PEFT has a bias for all updates or none.
TEST(PeftExport, WritesBiasesOfTwoUpdatesAsOne) {
  PeftFixture first, second;
  first.add("lora", {{"sites", {"*.q"}}, {"rank", 2}, {"alpha", 6}, {"up_bias", true}});
  first.add("lora", {{"sites", {"enc.0.self.[qv]"}}, {"rank", 1}, {"alpha", 5}});
  first.add("lora", {{"sites", {"enc.1.self.q"}}, {"rank", 1}, {"up_bias", true}});
  first.disturb();
  const TempFolder folder;
  first.save(folder.path());
  EXPECT_EQ(read_json(folder.file("adapter_config.json")).at("lora_bias"), true);
  const SafetensorsFile file(folder.file("adapter_model.safetensors"));
  EXPECT_EQ(file.tensor("base_model.model.bert.encoder.layer.0.attention.self.value.lora_B.bias")
                .abs()
                .max()
                .item<float>(),
            0);
  second.load(folder.path());
  expect_near(first.logits(), second.logits(), 1e-6);
}

TEST(PeftExport, RefusesATableBesideBiases) {
  PeftFixture fixture;
  fixture.add("lora", {{"sites", {"*.q"}}, {"up_bias", true}});
  fixture.add("lora", {{"sites", {"enc.embed.tok"}}});
  const TempFolder folder;
  expect_text(error_text(ErrorCode::Unsupported, [&] { fixture.save(folder.path()); }),
              "an update of enc.embed.tok beside others with up_bias");
}

TEST(PeftExport, WritesPissaAsPlainLoraOfTwiceTheRank) {
  PeftFixture first("bert", kernels::DType::F64);
  first.add("lora", {{"sites", {"*.self.q"}}, {"rank", 2}, {"init", "pissa"}});
  first.disturb(0.1);
  const TempFolder folder;
  const PeftExport written = first.save(folder.path());
  EXPECT_EQ(read_json(folder.file("adapter_config.json")).at("r"), 4);
  expect_near(logits_of(written), first.logits(), 1e-5);
}

TEST(PeftExport, AddsAnUpdateOfTheHeadIntoTheHead) {
  for (const char* method : {"lora", "loha", "vera"}) {
    PeftFixture first("bert", kernels::DType::F64);
    first.add(method, {{"sites", {"enc.*.self.q", "head.proj"}}, {"rank", 2}});
    first.disturb();
    const TempFolder folder;
    const PeftExport written = first.save(folder.path());
    expect_text(join(written.notes, "\n"), "update of classifier is added into its weight");
    expect_near(logits_of(written), first.logits(), 2e-6);
  }
}

TEST(PeftExport, KeepsTheStrengthOfAScaledSet) {
  PeftFixture first;
  first.add("lora", {{"sites", {"*.self.q"}}, {"rank", 2}, {"alpha", 3}});
  first.disturb();
  first.adaptation->scale("default", 0.3);
  const TempFolder folder;
  expect_equal(logits_of(first.save(folder.path()), kernels::DType::F32), first.logits());
}

TEST(PeftExport, LeavesAMeanPooledHeadOutAndDropsThePrefix) {
  HeadRequest head{HeadKind::Sequence, 3, "mean"};
  PeftFixture fixture("bert", kernels::DType::F32, &head);
  fixture.add("lora", {{"sites", {"*.self.[qv]"}}, {"rank", 2}});
  fixture.add("head");
  fixture.disturb();
  const TempFolder folder;
  const PeftExport written = fixture.save(folder.path(), "classify", false);
  expect_text(join(written.notes, "\n"), "classifier stays in attune.safetensors");
  const Json config = read_json(folder.file("adapter_config.json"));
  EXPECT_EQ(config.at("task_type"), "FEATURE_EXTRACTION");
  EXPECT_TRUE(config.at("modules_to_save").is_null());
  EXPECT_EQ(config.at("target_modules"), Json({"attention.self.query", "attention.self.value"}));
  const SafetensorsFile file(folder.file("adapter_model.safetensors"));
  EXPECT_EQ(file.tensors().size(), 8u);
  EXPECT_TRUE(file.has("base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"));
  PeftFixture again("bert", kernels::DType::F32, &head);
  again.load(folder.path());
  for (const std::pair<std::string, Tensor>& entry : again.adaptation->tensors("default"))
    for (const std::pair<std::string, Tensor>& other : fixture.adaptation->tensors("default")) {
      if (entry.first != other.first) continue;
      EXPECT_TRUE(at::equal(entry.second, other.second)) << entry.first;
    }
}

TEST(PeftExport, SavesAFreshPoolerWhole) {
  // The golden base has a pooler; a base without one gets its pooler from the seed.
  const TempFolder base, folder;
  fs::copy(golden("bert", "base/config.json"), base.file("config.json"));
  const SafetensorsFile file(golden("bert", "base/model.safetensors"));
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors())
    if (info.name.find("pooler") == std::string::npos)
      tensors.emplace_back(info.name, file.tensor(info.name));
  save_safetensors(base.file("model.safetensors"), tensors);
  const LoadedModel loaded = load_model(base.path(), {});
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*loaded.model, registry, 1);
  adaptation.add("default", {"lora", {{"sites", {"*.self.q"}}, {"rank", 2}}});
  export_peft(adaptation, *loaded.model, "default", "base", "classify", true, folder.path());
  EXPECT_EQ(read_json(folder.file("adapter_config.json")).at("modules_to_save"),
            Json({"bert.pooler.dense", "classifier", "score"}));
  const SafetensorsFile written(folder.file("adapter_model.safetensors"));
  EXPECT_TRUE(at::equal(written.tensor("base_model.model.bert.pooler.dense.weight"),
                        loaded.model->slot(loaded.model->site("head.pool")).weight));
}

TEST(PeftExport, WritesAMixtureAsOneDirectoryATypeInTheirOrder) {
  PeftFixture first("bert", kernels::DType::F64);
  first.add("lora", {{"sites", {"*.self.[qv]"}}, {"rank", 2}});
  first.add("loha", {{"sites", {"*.self.q"}}, {"rank", 2}});
  first.add("prompt", {{"length", 3}, {"pooled", true}});
  first.add("lora", {{"sites", {"*.self.q"}}, {"rank", 3}});
  first.add("norms");
  first.add("head");
  first.disturb();
  const TempFolder folder;
  const PeftExport written = first.save(folder.path());
  EXPECT_EQ(written.directories,
            (std::vector<std::string>{folder.file("1-lora"), folder.file("2-loha"),
                                      folder.file("3-prompt_tuning"), folder.file("4-lora")}));
  EXPECT_EQ(type_of(written.directories[1]), "LOHA");
  EXPECT_EQ(type_of(written.directories[2]), "PROMPT_TUNING");
  expect_text(join(written.notes, "\n"), "load them in this order");
  expect_near(logits_of(written), first.logits(), 2e-6);
  // Every directory has the head, because PEFT asks for it; the norms are in the first alone.
  for (const std::string& directory : written.directories) {
    const SafetensorsFile file(directory + "/adapter_model.safetensors");
    const bool prompts = ends_with(directory, "prompt_tuning");
    EXPECT_TRUE(
        file.has(prompts ? "base_model.classifier.weight" : "base_model.model.classifier.weight"));
    EXPECT_EQ(file.has("base_model.model.bert.embeddings.LayerNorm.weight"),
              directory == written.directories[0]);
  }
}

TEST(PeftExport, JoinsTunersOfOneTypeThatAgree) {
  PeftFixture first("bert", kernels::DType::F64);
  first.add("loha", {{"sites", {"*.self.q"}}, {"rank", 2}});
  first.add("loha", {{"sites", {"*.self.v"}}, {"rank", 3}});
  first.add("fourierft", {{"sites", {"*.self.q"}}, {"frequencies", 5}});
  first.add("fourierft", {{"sites", {"*.self.v"}}, {"frequencies", 7}});
  first.add("fourierft", {{"sites", {"*.self.k"}}, {"frequencies", 7}, {"scaling", 9}});
  first.disturb();
  const TempFolder folder;
  const PeftExport written = first.save(folder.path());
  ASSERT_EQ(written.directories.size(), 3u);
  const Json loha = read_json(written.directories[0] + "/adapter_config.json");
  EXPECT_EQ(loha.at("rank_pattern").size(), 2u);
  const Json fourier = read_json(written.directories[1] + "/adapter_config.json");
  EXPECT_EQ(fourier.at("n_frequency_pattern").begin().key(),
            "encoder\\.layer\\.0\\.attention\\.self\\.value");
  expect_near(logits_of(written), first.logits(), 2e-6);
}

TEST(PeftExport, WritesNormsAloneAsLnTuning) {
  PeftFixture first("bert", kernels::DType::F64);
  first.add("norms", {{"sites", {"*.self.norm"}}});
  first.add("head");
  first.disturb();
  const TempFolder folder;
  const PeftExport written = first.save(folder.path());
  EXPECT_EQ(type_of(folder.path()), "LN_TUNING");
  EXPECT_EQ(read_json(folder.file("adapter_config.json")).at("target_modules"),
            Json({"attention.output.LayerNorm"}));
  expect_near(logits_of(written), first.logits(), 1e-6);
}

TEST(PeftExport, TakesFactorsThatAMethodMakesAsTheyAreNow) {
  // AdaLoRA's, VeRA's and a network's tensors are made before each forward; here none has run since
  // they changed.
  for (const char* method : {"vera", "adalora", "p_tuning", "prefix"}) {
    PeftFixture first("bert", kernels::DType::F64);
    const std::string name = method;
    if (name == "vera") first.add("vera", {{"rank", 5}});
    if (name == "adalora") first.add("adalora", {{"init_rank", 3}, {"rank", 2}});
    if (name == "p_tuning")
      first.add("p_tuning", {{"length", 2}, {"encoder", "lstm"}, {"hidden", 3}, {"pooled", true}});
    if (name == "prefix")
      first.add("prefix",
                {{"length", 2}, {"projection", true}, {"hidden", 3}, {"shift_positions", true}});
    first.disturb();
    const TempFolder folder;
    const PeftExport written = first.save(folder.path());
    expect_near(logits_of(written), first.logits(), 2e-6);
  }
}

TEST(PeftExport, RefusesWhatPeftCannotExpress) {
  const TempFolder folder;
  const auto refusal = [&](const std::vector<TunerSpec>& specs) {
    PeftFixture fixture;
    for (const TunerSpec& spec : specs) fixture.adaptation->add("default", spec);
    return error_text(ErrorCode::Unsupported, [&] { fixture.save(folder.file("out")); });
  };
  const TunerSpec lora{"lora", {{"sites", {"*.self.q"}}, {"rank", 2}}};
  expect_text(refusal({{"head", Json::object()}}), "holds no update of the model's body");
  expect_text(refusal({lora, {"bias", {{"sites", {"*.self.k"}}}}}),
              "2 biases trained; PEFT knows all of them (");
  expect_text(refusal({{"ia3", Json::object()}, {"bias", {{"sites", {"*.self.k"}}}}}),
              "0 for a type without biases");
  expect_text(
      refusal({lora, {"adapter", {{"size", 2}}}}),
      "method 1.adapter uses Apply at enc.0.self.out, for which no type of PEFT has a form");
  expect_text(refusal({{"prompt", {{"length", 2}}}}), "train with `pooled: true`");
  expect_text(refusal({{"prompt", {{"length", 2}, {"sites", {"enc.1.resid.in"}}}}}),
              "it adds rows at enc.1.resid.in, PEFT at enc.embed.rows alone");
  expect_text(refusal({{"prefix", {{"length", 2}, {"sites", {"enc.0.self.kv"}}}}}),
              "it has prefixes at 1 attentions, PEFT at all 2 of the stack");
  expect_text(
      refusal({{"prefix", {{"length", 2}, {"shift_positions", false}}}}),
      "its prefix at enc.0.self.kv is absent, gated, by sequence, or does not shift the positions");
  EXPECT_FALSE(fs::exists(folder.file("out")));
}

TEST(PeftExport, RefusesFourierEntriesThatPeftWouldNotDraw) {
  PeftFixture fixture;
  fixture.add("fourierft", {{"sites", {"*.self.q"}}, {"frequencies", 5}});
  for (const auto& entry : fixture.adaptation->tensors("default"))
    if (ends_with(entry.first, "/positions")) entry.second.zero_();
  const TempFolder folder;
  expect_text(
      error_text(ErrorCode::Unsupported, [&] { fixture.save(folder.file("out")); }),
      "the trained entries at enc.0.self.q are not those that PEFT draws from the seed 777");
}

/// What no method of the registry does: a shift of a projection, and a gated update.
class Odd final : public Tuner {
 public:
  explicit Odd(bool shift) : shift_(shift) {}
  void attach(Attachment& attachment) override {
    for (const Site& site : attachment.sites("enc.0.self.q")) {
      const Tensor own = attachment.parameter(site, "own", attachment.zeros({site.out, 1}));
      LowRank gated{attachment.ones({1, site.in}), own};
      gated.gate = [](const View& view) { return view.x.select(1, 0); };
      attachment.add(site, shift_ ? Edit(Shift{own.reshape({-1})}) : Edit(gated));
    }
  }

 private:
  bool shift_;
};

TEST(PeftExport, NamesTheMethodWhoseVerbsPeftLacks) {
  for (const bool shift : {true, false}) {
    PeftFixture fixture;
    Registry<Tuner> registry = methods();
    Entry<Tuner> entry;
    entry.name = "odd";
    entry.make = [shift](const Options&) { return std::make_unique<Odd>(shift); };
    registry.add(std::move(entry));
    fixture.adaptation = nullptr;  // one adaptation a model
    Adaptation adaptation(fixture.model(), registry, 1);
    adaptation.add("default", {"odd", Json::object()});
    const std::string text = error_text(ErrorCode::Unsupported, [&] {
      export_peft(adaptation, fixture.model(), "default", "base", "classify", true, "/nowhere");
    });
    expect_text(text, shift ? "method 0.odd uses Shift at enc.0.self.q"
                            : "it uses LowRank with a gate at enc.0.self.q");
  }
}

}  // namespace peft_export_test
}  // namespace attune
