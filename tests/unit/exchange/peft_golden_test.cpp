// Every adapter of tests/golden/peft in both directions.
#include <algorithm>

#include "unit/exchange/peft_fixture.h"

namespace attune {
namespace peft_golden_test {

namespace fs = std::filesystem;

struct GoldenAdapter {
  std::string family, name;
};

std::vector<GoldenAdapter> golden_adapters() {
  std::vector<GoldenAdapter> result;
  for (const fs::directory_entry& family : fs::directory_iterator(golden(""))) {
    const std::string name = family.path().filename().string();
    if (architectures().find(name.substr(0, name.find('-'))) == nullptr) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(family.path()))
      if (fs::exists(entry.path() / "adapter_config.json"))
        result.push_back({name, entry.path().filename().string()});
  }
  std::sort(result.begin(), result.end(), [](const GoldenAdapter& a, const GoldenAdapter& b) {
    return std::tie(a.family, a.name) < std::tie(b.family, b.name);
  });
  return result;
}

class GoldenAdapters : public ::testing::TestWithParam<GoldenAdapter> {
 protected:
  std::string directory() const { return golden(GetParam().family, GetParam().name); }
  std::string task() const {
    const Json type = read_json(directory() + "/adapter_config.json").at("task_type");
    return type == "SEQ_CLS" ? "classify" : type.is_null() ? "" : "lm";
  }
};

TEST_P(GoldenAdapters, ComputeWhatPeftComputes) {
  for (const kernels::DType type : {kernels::DType::F32, kernels::DType::F64}) {
    PeftFixture fixture(GetParam().family, type);
    fixture.load(directory());
    expect_near(fixture.logits(), expected_logits(GetParam().family, GetParam().name), 3e-5);
  }
}

/// In the names of old releases of transformers and in those of new ones.
TEST_P(GoldenAdapters, SurviveExportAndLoadBitForBit) {
  const bool renamed = GetParam().family == "vit";  // the others have one spelling
  for (const bool newer : renamed ? std::vector<bool>{false, true} : std::vector<bool>{false}) {
    PeftFixture first(GetParam().family);
    first.load(directory());
    const TempFolder folder;
    const PeftExport written = first.save(folder.path(), task(), true, newer);
    ASSERT_EQ(written.directories, std::vector<std::string>{folder.path()})
        << join(written.notes, "\n");
    PeftFixture second(GetParam().family);
    second.load(folder.path());
    expect_equal(first.logits(), second.logits());
    const Json before = read_json(directory() + "/adapter_config.json");
    const Json after = read_json(folder.file("adapter_config.json"));
    for (const char* field : {"peft_type", "bias", "r", "num_virtual_tokens"}) {
      // AdaLoRA's "r" means nothing beside init_r and target_r.
      if (std::string(field) == "r" && before.value("peft_type", "") == "ADALORA") continue;
      EXPECT_EQ(after.value(field, before.value(field, Json())), before.value(field, Json()))
          << field;
    }
    // PEFT refuses a directory whose feed-forward modules are not among its targets, letter by
    // letter.
    const Json targets = after.value("target_modules", Json::array());
    for (const Json& module : after.value("feedforward_modules", Json::array()))
      EXPECT_EQ(std::count(targets.begin(), targets.end(), module), 1) << module;
  }
}

/// The same tensors under the same names, but for what PEFT writes twice or draws again.
TEST_P(GoldenAdapters, AreWrittenAsPeftWroteThem) {
  PeftFixture fixture(GetParam().family);
  fixture.load(directory());
  const TempFolder folder;
  fixture.save(folder.path(), task(), true, true);
  const SafetensorsFile ours(folder.path() + "/adapter_model.safetensors");
  const NamedTensors theirs = adapter_tensors(directory());
  for (const std::pair<std::string, Tensor>& entry : theirs) {
    const bool twice = entry.first.find("original_module") != std::string::npos ||
                       entry.first.find(".modules_to_save.") != std::string::npos ||
                       entry.first.find(".trainable_tokens_delta") != std::string::npos ||
                       entry.first.find("base_layer.weight") != std::string::npos;
    if (twice || fixture.holds(entry)) continue;
    ASSERT_TRUE(ours.has(entry.first)) << entry.first;
    const bool narrowed = GetParam().name == "adalora-pruned" || ends_with(entry.first, "boft_R");
    EXPECT_TRUE(narrowed || ours.tensor(entry.first).sizes() == entry.second.sizes())
        << entry.first;
  }
}

INSTANTIATE_TEST_SUITE_P(Peft, GoldenAdapters, ::testing::ValuesIn(golden_adapters()),
                         [](const ::testing::TestParamInfo<GoldenAdapter>& info) {
                           std::string name = info.param.family + "_" + info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace peft_golden_test
}  // namespace attune
