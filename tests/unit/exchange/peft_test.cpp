#include "exchange/peft.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "arch/load.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "io/safetensors.h"
#include "methods/registry.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace {

namespace fs = std::filesystem;

const std::string kGolden = std::string(ATTUNE_TEST_DATA) + "/peft/";
const std::vector<std::string> kAdapters{"qv",       "rslora",    "bias-all", "bias-lora-only",
                                         "patterns", "one-layer", "head"};

class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> count{0};
    path_ = (fs::temp_directory_path() / format("attune-peft-{}-{}", ::getpid(), count++)).string();
    fs::create_directories(path_);
  }
  ~TempFolder() { fs::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

template <class Body>
std::string error_text(ErrorCode code, Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error_name(error.code()), std::string(error_name(code))) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

/// The tiny classifier of the golden folder with one adaptation.
struct Fixture {
  Registry<Tuner> registry = methods();
  LoadedModel loaded;
  std::unique_ptr<Adaptation> adaptation;
  explicit Fixture(kernels::DType type = kernels::DType::F32, const HeadRequest* head = nullptr) {
    LoadOptions options;
    options.numerics.compute = type;
    if (head != nullptr) {
      options.own_head = true;
      options.head = *head;
    }
    loaded = load_model(kGolden + "base", options);
    adaptation = std::make_unique<Adaptation>(*loaded.model, registry, 1);
  }
  Model& model() { return *loaded.model; }
  void load(const std::string& directory) { load_peft(*adaptation, model(), "default", directory); }
  std::vector<Tensor> logits();
  PeftExport save(const std::string& directory, const std::string& task = "classify",
                  bool head = true) {
    return export_peft(*adaptation, model(), "default", "base", task, head, directory);
  }
};

Tensor ints(const Json& list) {
  return at::tensor(list.get<std::vector<int>>(), at::kInt);
}

std::vector<Tensor> Fixture::logits() {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> result;
  for (const std::string& line : split(read_file(kGolden + "inputs.jsonl"), '\n')) {
    if (line.empty()) continue;
    const Json json = parse_json(line, "inputs.jsonl");
    Batch batch;
    Stream stream;
    stream.ids = ints(json.at("input_ids"));
    stream.types = ints(json.at("token_type_ids"));
    stream.rows = RowIndex::from_lengths({stream.ids.size(0)});
    batch.streams["enc"] = stream;
    result.push_back(model().forward(batch, {}).head->logits({}).reshape({-1}).clone());
  }
  return result;
}

void expect_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << a[i] << b[i];
}

void expect_near(const std::vector<Tensor>& a, const std::vector<Tensor>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const Tensor x = a[i].to(at::kDouble), y = b[i].to(at::kDouble);
    EXPECT_LE(((x - y).abs() / (1 + y.abs())).max().item<double>(), tolerance);
  }
}

std::vector<Tensor> expected(const std::string& adapter) {
  const SafetensorsFile file(kGolden + "expected.safetensors");
  std::vector<Tensor> result;
  for (int i = 0; i < 4; ++i) result.push_back(file.tensor(format("{}/{}/logits", adapter, i)));
  return result;
}

/// A copy of a golden adapter whose config can be changed.
void copy_adapter(const std::string& adapter, const std::string& directory, const Json& changes) {
  fs::copy(kGolden + adapter, directory,
           fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  Json config = read_json(directory + "/adapter_config.json");
  config.update(changes);
  write_file_atomic(directory + "/adapter_config.json", config.dump(2));
}

/// Fills the set's tensors as training might: zeros would hide mistakes.
void disturb(Adaptation& adaptation) {
  const at::NoGradGuard no_grad;
  double phase = 0;
  for (const std::pair<std::string, Tensor>& entry : adaptation.tensors("default")) {
    const Tensor noise =
        at::arange(entry.second.numel(), at::kDouble).add(phase += 1).mul(1.7).sin().mul(0.3);
    entry.second.add_(noise.reshape(entry.second.sizes()).to(entry.second.scalar_type()));
    mark_changed(entry.second);
  }
}

class GoldenAdapters : public ::testing::TestWithParam<std::tuple<std::string, kernels::DType>> {};

TEST_P(GoldenAdapters, ComputeWhatPeftComputes) {
  Fixture fixture(std::get<1>(GetParam()));
  fixture.load(kGolden + std::get<0>(GetParam()));
  expect_near(fixture.logits(), expected(std::get<0>(GetParam())), 3e-5);
}

TEST_P(GoldenAdapters, SurviveExportAndLoadBitForBit) {
  Fixture first(std::get<1>(GetParam()));
  first.load(kGolden + std::get<0>(GetParam()));
  const TempFolder folder;
  first.save(folder.path());
  Fixture second(std::get<1>(GetParam()));
  second.load(folder.path());
  expect_equal(first.logits(), second.logits());
  const Json before = read_json(kGolden + std::get<0>(GetParam()) + "/adapter_config.json");
  EXPECT_EQ(read_json(folder.path() + "/adapter_config.json").at("bias"), before.at("bias"));
}

INSTANTIATE_TEST_SUITE_P(Peft, GoldenAdapters,
                         ::testing::Combine(::testing::ValuesIn(kAdapters),
                                            ::testing::Values(kernels::DType::F32,
                                                              kernels::DType::F64)));

TEST(PeftLoad, LeavesTheModelAsItWasWhenTheSetIsRemoved) {
  Fixture fixture;
  const std::vector<Tensor> before = fixture.logits();
  fixture.load(kGolden + "patterns");
  fixture.adaptation->remove("default");
  expect_equal(before, fixture.logits());
}

TEST(PeftLoad, TakesTargetModulesAsAnExpression) {
  const TempFolder folder;
  copy_adapter("qv", folder.path(), {{"target_modules", ".*self\\.(query|value)"}});
  Fixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected("qv"), 3e-5);
}

TEST(PeftLoad, TakesAllLinear) {
  const TempFolder folder;
  copy_adapter("patterns", folder.path(), {{"target_modules", "all-linear"}});
  Fixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected("patterns"), 3e-5);
}

TEST(PeftLoad, HonoursExcludeModules) {
  const TempFolder folder;
  copy_adapter("qv", folder.path(),
               {{"target_modules", {"query", "value", "key"}}, {"exclude_modules", {"key"}}});
  Fixture fixture;
  fixture.load(folder.path());
  expect_near(fixture.logits(), expected("qv"), 3e-5);
}

TEST(PeftLoad, ReadsTheCard) {
  EXPECT_TRUE(is_peft(kGolden + "qv"));
  EXPECT_FALSE(is_peft(kGolden + "base"));
  const PeftCard card = read_peft_card(kGolden + "qv");
  EXPECT_EQ(card.base_model, "base");
  EXPECT_EQ(card.task_type, "SEQ_CLS");
  EXPECT_EQ(card.head.kind, HeadKind::Sequence);
  EXPECT_EQ(card.head.labels, 3);
  EXPECT_EQ(card.config.at("r"), 4);
  EXPECT_NE(error_text(ErrorCode::NotFound, [] { read_peft_card("/nowhere"); })
                .find("/nowhere/adapter_config.json"),
            std::string::npos);
  const TempFolder folder;
  write_file_atomic(folder.path() + "/adapter_config.json", "{}");
  EXPECT_NE(
      error_text(ErrorCode::Corrupt, [&] { read_peft_card(folder.path()); }).find("peft_type"),
      std::string::npos);
}

struct Refusal {
  Json change;
  ErrorCode code;
  std::string text;
};

TEST(PeftLoad, RefusesWhatItWouldComputeDifferently) {
  const std::vector<Refusal> cases{
      {{{"use_dora", true}}, ErrorCode::Unsupported, "\"use_dora\" is true"},
      {{{"lora_bias", true}}, ErrorCode::Unsupported, "\"lora_bias\" is true"},
      {{{"fan_in_fan_out", true}}, ErrorCode::Unsupported, "\"fan_in_fan_out\" is true"},
      {{{"target_parameters", {"experts"}}}, ErrorCode::Unsupported, "\"target_parameters\""},
      {{{"of_the_future", 3}}, ErrorCode::Unsupported, "\"of_the_future\" is 3"},
      {{{"init_lora_weights", "pissa"}},
       ErrorCode::Unsupported,
       "\"init_lora_weights\" is \"pissa\""},
      {{{"peft_type", "IA3"}}, ErrorCode::Unsupported, "\"peft_type\" is \"IA3\""},
      {{{"bias", "some"}}, ErrorCode::Unsupported, "\"bias\" is \"some\""},
      {{{"r", "four"}}, ErrorCode::Corrupt, "\"r\" is \"four\""},
      {{{"rank_pattern", 4}}, ErrorCode::Corrupt, "\"rank_pattern\" is 4"},
      {{{"r", 5}},
       ErrorCode::Corrupt,
       "has shape [4, 12], but config and model need floating-point [5, 12]"},
      {{{"target_modules", {"query"}}}, ErrorCode::Corrupt, "target_modules of"},
      {{{"target_modules", {"query", "value", "key"}}},
       ErrorCode::Corrupt,
       "self.key.lora_A.weight is missing"},
      {{{"target_modules", "("}},
       ErrorCode::Unsupported,
       "target_modules: the expression \"(\" is not understood"},
  };
  for (const Refusal& refusal : cases) {
    const TempFolder folder;
    copy_adapter("qv", folder.path(), refusal.change);
    Fixture fixture;
    EXPECT_NE(error_text(refusal.code, [&] { fixture.load(folder.path()); }).find(refusal.text),
              std::string::npos)
        << refusal.text;
    EXPECT_TRUE(fixture.adaptation->sets().empty());
  }
}

TEST(PeftLoad, RefusesFilesItCannotUse) {
  const TempFolder folder;
  copy_adapter("qv", folder.path(), Json::object());
  const std::string tensors = folder.path() + "/adapter_model.safetensors";
  NamedTensors kept;
  const SafetensorsFile file(kGolden + "qv/adapter_model.safetensors");
  for (const TensorInfo& info : file.tensors())
    kept.emplace_back(info.name, file.tensor(info.name).clone());
  const std::function<std::string(ErrorCode, const NamedTensors&)> message =
      [&](ErrorCode code, const NamedTensors& list) {
        save_safetensors(tensors, list);
        Fixture fixture;
        return error_text(code, [&] { fixture.load(folder.path()); });
      };
  const std::string query = "base_model.model.bert.encoder.layer.0.attention.self.query.";
  NamedTensors list = kept;
  std::erase_if(list, [&](const std::pair<std::string, Tensor>& entry) {
    return entry.first == query + "lora_B.weight";
  });
  EXPECT_NE(message(ErrorCode::Corrupt, list).find("query has lora_A without lora_B"),
            std::string::npos);
  list = kept;
  list.emplace_back(query + "lora_magnitude_vector", at::ones({12}));
  EXPECT_NE(message(ErrorCode::Unsupported, list).find("lora_magnitude_vector is of a kind"),
            std::string::npos);
  list = kept;
  list.emplace_back("base_model.model.bert.nowhere.weight", at::ones({12}));
  EXPECT_NE(message(ErrorCode::BadInput, list).find("a module that this model does not have"),
            std::string::npos);
  list = kept;
  list.emplace_back("prompt_embeddings", at::ones({12}));
  EXPECT_NE(message(ErrorCode::Unsupported, list).find("does not begin with"), std::string::npos);
  EXPECT_NE(message(ErrorCode::Corrupt, {{"base_model.model.classifier.bias", at::ones({3})}})
                .find("no lora_A"),
            std::string::npos);
  fs::remove(tensors);
  Fixture fixture;
  EXPECT_NE(
      error_text(ErrorCode::NotFound, [&] { fixture.load(folder.path()); }).find("is missing"),
      std::string::npos);
  write_file_atomic(folder.path() + "/adapter_model.bin", "x");
  EXPECT_NE(error_text(ErrorCode::Unsupported, [&] { fixture.load(folder.path()); })
                .find("safe_serialization=True"),
            std::string::npos);
}

TEST(PeftExport, WritesTwoUpdatesOfOneProjectionAsOne) {
  Fixture first(kernels::DType::F64);
  first.adaptation->add("default", {"lora", {{"sites", {"*.self.q"}}, {"rank", 2}, {"alpha", 3}}});
  first.adaptation->add("default",
                        {"lora", {{"sites", {"*.self.[qv]"}}, {"rank", 3}, {"alpha", 1}}});
  first.adaptation->add("default", {"head", Json::object()});
  disturb(*first.adaptation);
  const TempFolder folder;
  const PeftExport written = first.save(folder.path());
  EXPECT_NE(
      join(written.notes, "\n")
          .find("2 updates of bert.encoder.layer.0.attention.self.query are written as one of "
                "rank 5"),
      std::string::npos);
  Fixture second(kernels::DType::F64);
  second.load(folder.path());
  expect_near(second.logits(), first.logits(), 1e-6);
}

TEST(PeftExport, AddsAnUpdateOfTheHeadIntoTheHead) {
  Fixture first(kernels::DType::F64);
  first.adaptation->add(
      "default", {"lora", {{"sites", {"enc.*.self.q", "head.proj"}}, {"rank", 2}, {"alpha", 4}}});
  disturb(*first.adaptation);
  const TempFolder folder;
  EXPECT_NE(join(first.save(folder.path()).notes, "\n")
                .find("update of classifier is added into its weight"),
            std::string::npos);
  Fixture second(kernels::DType::F64);
  second.load(folder.path());
  expect_near(second.logits(), first.logits(), 1e-6);
}

TEST(PeftExport, KeepsTheStrengthOfAScaledSet) {
  Fixture first;
  first.adaptation->add("default", {"lora", {{"sites", {"*.self.q"}}, {"rank", 2}, {"alpha", 3}}});
  disturb(*first.adaptation);
  first.adaptation->scale("default", 0.3);
  const TempFolder folder;
  first.save(folder.path());
  Fixture second;
  second.load(folder.path());
  expect_equal(second.logits(), first.logits());
}

TEST(PeftExport, LeavesAMeanPooledHeadOutAndDropsThePrefix) {
  HeadRequest head{HeadKind::Sequence, 3, "mean"};
  Fixture fixture(kernels::DType::F32, &head);
  fixture.adaptation->add("default", {"lora", {{"sites", {"*.self.[qv]"}}, {"rank", 2}}});
  fixture.adaptation->add("default", {"head", Json::object()});
  disturb(*fixture.adaptation);
  const TempFolder folder;
  const PeftExport written = fixture.save(folder.path(), "classify", false);
  EXPECT_NE(join(written.notes, "\n").find("classifier stays in attune.safetensors"),
            std::string::npos);
  const Json config = read_json(folder.path() + "/adapter_config.json");
  EXPECT_EQ(config.at("task_type"), "FEATURE_EXTRACTION");
  EXPECT_TRUE(config.at("modules_to_save").is_null());
  EXPECT_EQ(config.at("target_modules"), Json({"attention.self.query", "attention.self.value"}));
  const SafetensorsFile file(folder.path() + "/adapter_model.safetensors");
  EXPECT_EQ(file.tensors().size(), 8u);
  EXPECT_TRUE(file.has("base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"));
  Fixture again(kernels::DType::F32, &head);
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
  fs::copy(kGolden + "base/config.json", base.path() + "/config.json");
  const SafetensorsFile file(kGolden + "base/model.safetensors");
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors())
    if (info.name.find("pooler") == std::string::npos)
      tensors.emplace_back(info.name, file.tensor(info.name));
  save_safetensors(base.path() + "/model.safetensors", tensors);
  const LoadedModel loaded = load_model(base.path(), {});
  const Registry<Tuner> registry = methods();
  Adaptation adaptation(*loaded.model, registry, 1);
  adaptation.add("default", {"lora", {{"sites", {"*.self.q"}}, {"rank", 2}}});
  export_peft(adaptation, *loaded.model, "default", "base", "classify", true, folder.path());
  EXPECT_EQ(read_json(folder.path() + "/adapter_config.json").at("modules_to_save"),
            Json({"bert.pooler.dense", "classifier", "score"}));
  const SafetensorsFile written(folder.path() + "/adapter_model.safetensors");
  EXPECT_TRUE(at::equal(written.tensor("base_model.model.bert.pooler.dense.weight"),
                        loaded.model->slot(loaded.model->site("head.pool")).weight));
}

TEST(PeftExport, RefusesWhatPeftCannotExpress) {
  const TempFolder folder;
  const std::function<std::string(const std::vector<TunerSpec>&)> refusal =
      [&](const std::vector<TunerSpec>& specs) {
        Fixture fixture;
        for (const TunerSpec& spec : specs) fixture.adaptation->add("default", spec);
        return error_text(ErrorCode::Unsupported, [&] { fixture.save(folder.path() + "/out"); });
      };
  const TunerSpec lora{"lora", {{"sites", {"*.self.q"}}, {"rank", 2}}};
  EXPECT_NE(refusal({{"head", Json::object()}}).find("no low-rank update"), std::string::npos);
  EXPECT_NE(
      refusal({lora, {"bias", {{"sites", {"*.self.k"}}}}}).find("method bias trained 2 biases"),
      std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() + "/out"));
}

/// What no method of the registry does yet: another verb, or a tensor that is no factor.
class Odd final : public Tuner {
 public:
  explicit Odd(bool shift) : shift_(shift) {}
  void attach(Attachment& attachment) override {
    for (const Site& site : attachment.sites("enc.0.self.q")) {
      const Tensor own = attachment.parameter(site, "own", attachment.zeros({site.out}));
      if (shift_) attachment.add(site, Shift{own});
    }
  }

 private:
  bool shift_;
};

TEST(PeftExport, NamesTheMethodWhoseVerbsPeftLacks) {
  for (const bool shift : {true, false}) {
    Fixture fixture;
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
    EXPECT_NE(text.find(shift ? "method 0.odd uses Shift at enc.0.self.q"
                              : "holds the tensor enc.0.self.q/own"),
              std::string::npos)
        << text;
  }
}

}  // namespace
}  // namespace attune
