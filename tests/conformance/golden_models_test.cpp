// Parity with transformers: states, logits and gradients of the checkpoints under
// tests/golden/{llama,t5,vit}.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/text.h"
#include "recipe/forward_inputs.h"
#include "tensor/torch.h"

namespace attune {
namespace golden_models_test {

namespace fs = std::filesystem;

/// "llama/lm", ...
std::vector<std::string> golden_cases() {
  std::vector<std::string> cases;
  for (const char* family : {"llama", "t5", "vit"}) {
    const fs::path folder = fs::path(ATTUNE_TEST_DATA) / family;
    if (!fs::exists(folder)) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
      cases.push_back(std::string(family) + "/" + entry.path().filename().string());
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

class GoldenModels : public ::testing::TestWithParam<std::tuple<std::string, const char*>> {
 protected:
  std::string folder() const {
    return std::string(ATTUNE_TEST_DATA) + "/" + std::get<0>(GetParam());
  }
  bool doubled() const { return std::string(std::get<1>(GetParam())) == "fp64"; }
  std::map<std::string, Tensor> run(const std::vector<std::string>& wanted) const {
    TargetRequest request;
    request.name = folder();
    request.precision = std::get<1>(GetParam());
    request.need_task = false;
    const std::unique_ptr<Target> target = open_target(request);
    EXPECT_TRUE(target->loaded.report.fresh.empty());
    EXPECT_TRUE(target->loaded.report.unexpected.empty());
    std::map<std::string, Tensor> result;
    const Dataset data = Dataset::open(request.name + "/inputs.jsonl");
    for (const std::pair<std::string, Tensor>& entry : forward_all(*target, data, wanted, true))
      result.insert(entry);
    return result;
  }
};

/// Names of sites and logits among "N/NAME".
std::vector<std::string> wanted_names(const SafetensorsFile& expected) {
  std::vector<std::string> names;
  for (const TensorInfo& info : expected.tensors()) {
    const std::string name = info.name.substr(info.name.find('/') + 1);
    if (name != "loss" && name.find('/') == std::string::npos &&
        std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(name);
  }
  return names;
}

TEST_P(GoldenModels, StatesLogitsAndGradientsMatchTransformers) {
  const SafetensorsFile expected(folder() + "/expected.safetensors");
  std::map<std::string, Tensor> got = run(wanted_names(expected));
  // The reference takes RMS norms, angles and softmax in single precision whatever its type.
  const double tolerance = doubled() ? 3e-6 : 3e-5;
  double whole = 0;
  for (const TensorInfo& info : expected.tensors())
    if (info.name.find("/grad/") != std::string::npos)
      whole += expected.tensor(info.name).to(at::kDouble).square().sum().item<double>();
  whole = std::sqrt(whole);
  for (const TensorInfo& info : expected.tensors()) {
    ASSERT_TRUE(got.count(info.name)) << info.name;
    const Tensor want = expected.tensor(info.name).to(at::kDouble);
    const Tensor value = got[info.name].to(at::kDouble);
    ASSERT_EQ(value.numel(), want.numel()) << info.name;
    if (info.name.find("/grad/") == std::string::npos) {
      const Tensor error = (value.reshape(want.sizes()) - want).abs() / (1 + want.abs());
      EXPECT_LE(error.max().item<double>(), tolerance) << info.name;
      continue;
    }
    ASSERT_EQ(value.sizes(), want.sizes()) << info.name;
    const double error = (value - want).norm().item<double>(), norm = want.norm().item<double>();
    // A gradient that is mere rounding (key biases) is judged against the whole gradient.
    EXPECT_LE(error, std::max(3e-4 * norm, norm < 1e-4 * whole ? 1e-4 * whole : 1e-7)) << info.name;
  }
  EXPECT_GT(expected.tensors().size(), 5u);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModels,
                         ::testing::Combine(::testing::ValuesIn(golden_cases()),
                                            ::testing::Values("fp32", "fp64")),
                         [](const ::testing::TestParamInfo<GoldenModels::ParamType>& info) {
                           std::string name =
                               std::get<0>(info.param) + "_" + std::get<1>(info.param);
                           for (char& c : name)
                             if (c == '/' || c == '-') c = '_';
                           return name;
                         });

}  // namespace golden_models_test
}  // namespace attune
