// Merged weights are those of PEFT, for random values of its tensors
// (tests/golden/peft_weights.py).
#include <fstream>

#include "method_bench.h"

namespace attune {
namespace peft_weights_test {

const char* const kSite = "enc.0.self.q";

Json golden() {
  std::ifstream file(ATTUNE_TEST_DATA "/peft_weights.json");
  return Json::parse(file);
}

Tensor tensor_of(const Json& stored) {
  const std::vector<int64_t> shape = stored.at("shape").get<std::vector<int64_t>>();
  const std::vector<double> values = stored.at("values").get<std::vector<double>>();
  return at::tensor(values, at::kDouble).reshape(shape);
}

class PeftWeights : public ::testing::TestWithParam<Json> {};

TEST_P(PeftWeights, TheMergedWeightIsTheSame) {
  const Json& entry = GetParam();
  const Tensor weight = tensor_of(entry.at("weight"));
  MethodBench bench;
  bench.projection(kSite, weight.size(0), weight.size(1));
  bench.weight_of(kSite).copy_(weight);
  bench.bias(bench.site(kSite)).copy_(tensor_of(entry.at("bias")));
  const std::string method = entry.at("method").get<std::string>();
  bench.attach(method, entry.at("options"));
  EXPECT_EQ(bench.parameters.size(), entry.at("parameters").size());
  for (const auto& [key, stored] : entry.at("parameters").items()) {
    const Tensor value = tensor_of(stored);
    const std::string name = std::string(kSite) + "/" + key;
    ASSERT_EQ(bench.parameter_of(name).sizes(), value.sizes()) << name;
    bench.set(name, value);
  }
  if (!entry.at("positions").empty()) {
    const Tensor positions = tensor_of(entry.at("positions")).to(at::kInt);
    Tensor own = bench.buffers.at(std::string(kSite) + "/positions");
    // Fourier entries are drawn as PEFT draws them; a sparse mask is read from its file.
    if (method == "fourierft") {
      EXPECT_TRUE(at::equal(own, positions));
    }
    own.copy_(positions);
  }
  const Affine map = bench.folded(kSite);
  EXPECT_LT(difference(map.weight, tensor_of(entry.at("merged").at("weight"))), 1e-6);
  EXPECT_LT(difference(map.bias, tensor_of(entry.at("merged").at("bias"))), 1e-7);
  EXPECT_GT(difference(map.weight, weight), 1e-3);
}

std::vector<Json> cases() {
  return golden().get<std::vector<Json>>();
}

INSTANTIATE_TEST_SUITE_P(All, PeftWeights, ::testing::ValuesIn(cases()),
                         [](const ::testing::TestParamInfo<Json>& info) {
                           std::string name = info.param.at("name").get<std::string>();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace peft_weights_test
}  // namespace attune
