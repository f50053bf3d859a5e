// The weight that each method has in effect is the one PEFT's layers compute from the same tensors
// (tests/golden/methods/peft.json, made by tests/golden/methods.py).
#include "method_bench.h"

namespace attune {
namespace peft_definitions_test {

const Json& golden() {
  static const Json json = read_json(ATTUNE_TEST_DATA "/methods/peft.json");
  return json;
}

void flatten(const Json& value, std::vector<int64_t>& shape, std::vector<double>& out,
             size_t deep) {
  if (!value.is_array()) {
    out.push_back(value.get<double>());
    return;
  }
  if (shape.size() <= deep) shape.push_back(static_cast<int64_t>(value.size()));
  for (const Json& item : value) flatten(item, shape, out, deep + 1);
}

Tensor tensor_of(const Json& value) {
  std::vector<int64_t> shape;
  std::vector<double> numbers;
  flatten(value, shape, numbers, 0);
  Tensor result = at::empty(shape, at::kDouble);
  std::copy(numbers.begin(), numbers.end(), static_cast<double*>(result.data_ptr()));
  return result;
}

const std::map<std::string, std::string> kSites{
    {"q", "enc.0.self.q"}, {"up", "enc.0.ffn.up"}, {"down", "enc.0.ffn.down"}};

/// "up.lora_A" as "enc.0.ffn.up/down", "vera_A" as "shared/down".
std::string own_name(const std::string& name, const std::map<std::string, std::string>& names) {
  const size_t dot = name.find('.');
  if (dot == std::string::npos) return "shared/" + names.at(name);
  return kSites.at(name.substr(0, dot)) + "/" + names.at(name.substr(dot + 1));
}

class Definition {
 public:
  Definition(const std::string& name, const std::string& method, Json options,
             const std::map<std::string, std::string>& names)
      : golden_(golden().at(name)) {
    bench_.projection("enc.0.self.q", 6, 6);
    bench_.projection("enc.0.ffn.up", 8, 6);
    bench_.projection("enc.0.ffn.down", 6, 8);
    for (const std::pair<const std::string, std::string>& site : kSites)
      bench_.set_base(site.second, tensor_of(golden_.at("base").at(site.first)));
    options["sites"] = "*";
    bench_.attach(method, options);
    for (const auto& [key, value] : golden_.at("tensors").items())
      fill(own_name(key, names), value);
  }
  /// Largest difference from PEFT's weights, and whether the update changes every one of them.
  void check() {
    for (const std::pair<const std::string, std::string>& site : kSites) {
      const Tensor expected = tensor_of(golden_.at("effective").at(site.first));
      EXPECT_LE(difference(bench_.folded(site.second).weight, expected), 1e-8) << site.second;
      EXPECT_GT(difference(bench_.weight_of(site.second), expected), 1e-2) << site.second;
    }
    EXPECT_EQ(filled_, bench_.parameters.size() + bench_.buffers.size());
  }

 private:
  void fill(const std::string& name, const Json& value) {
    at::NoGradGuard no_grad;
    const bool trained = bench_.parameters.count(name) > 0;
    ASSERT_TRUE(trained || bench_.buffers.count(name) > 0) << name;
    const Tensor target = trained ? bench_.parameters.at(name) : bench_.buffers.at(name);
    const Tensor given = tensor_of(value);
    ASSERT_EQ(given.numel(), target.numel()) << name;
    target.copy_(given.reshape(target.sizes()));
    mark_changed(target);
    ++filled_;
  }

  const Json& golden_;
  MethodBench bench_;
  size_t filled_ = 0;
};

TEST(PeftDefinition, OfLora) {
  const std::map<std::string, std::string> names{{"lora_A", "down"}, {"lora_B", "up"}};
  Definition("lora", "lora", {{"rank", 2}, {"alpha", 6}}, names).check();
  Definition("lora_rslora", "lora", {{"rank", 3}, {"alpha", 6}, {"rslora", true}}, names).check();
  Definition("lora_patterns", "lora",
             {{"rank", 2},
              {"alpha", 6},
              {"rank_pattern", {{"*.up", 3}}},
              {"alpha_pattern", {{"*.down", 5}}}},
             names)
      .check();
}

TEST(PeftDefinition, OfDora) {
  const std::map<std::string, std::string> names{
      {"lora_A", "down"}, {"lora_B", "up"}, {"lora_magnitude_vector", "magnitude"}};
  Definition("dora", "dora", {{"rank", 2}, {"alpha", 5}}, names).check();
  Definition("dora_rslora", "dora", {{"rank", 4}, {"alpha", 3}, {"rslora", true}}, names).check();
}

TEST(PeftDefinition, OfLoha) {
  Definition(
      "loha", "loha", {{"rank", 2}, {"alpha", 5}},
      {{"hada_w1_a", "w1_a"}, {"hada_w1_b", "w1_b"}, {"hada_w2_a", "w2_a"}, {"hada_w2_b", "w2_b"}})
      .check();
}

TEST(PeftDefinition, OfLokr) {
  std::map<std::string, std::string> names;
  for (const std::string name : {"w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b"})
    names["lokr_" + name] = name;
  Definition("lokr", "lokr", {{"rank", 1}, {"alpha", 3}}, names).check();
  Definition("lokr_both", "lokr",
             {{"rank", 1}, {"alpha", 3}, {"decompose_both", true}, {"decompose_factor", 4}}, names)
      .check();
  Definition("lokr_factor", "lokr", {{"rank", 1}, {"alpha", 3}, {"decompose_factor", 4}}, names)
      .check();
  Definition("lokr_whole", "lokr", {{"rank", 4}, {"alpha", 3}}, names).check();
}

TEST(PeftDefinition, OfVera) {
  const std::map<std::string, std::string> names{
      {"vera_A", "down"}, {"vera_B", "up"}, {"vera_lambda_d", "d"}, {"vera_lambda_b", "b"}};
  Definition("vera", "vera", {{"rank", 3}}, names).check();
  Definition("vera_large", "vera", {{"rank", 13}}, names).check();
}

TEST(PeftDefinition, OfRandlora) {
  const std::map<std::string, std::string> names{{"randlora_A", "basis_a"},
                                                 {"randlora_B", "basis_b"},
                                                 {"randlora_lambda", "lambda"},
                                                 {"randlora_gamma", "gamma"}};
  for (const double dropout : {0.0, 0.1}) {  // a weight of its own, or a side-car
    Definition("randlora", "randlora", {{"rank", 2}, {"alpha", 8}, {"dropout", dropout}}, names)
        .check();
    Definition("randlora_uneven", "randlora", {{"rank", 4}, {"alpha", 8}, {"dropout", dropout}},
               names)
        .check();
  }
}

TEST(PeftDefinition, OfAdalora) {
  Definition("adalora", "adalora", {{"rank", 2}, {"init_rank", 3}, {"alpha", 6}},
             {{"lora_A", "q"}, {"lora_E", "e"}, {"lora_B", "p"}})
      .check();
}

TEST(PeftDefinition, OfAdalorasAllocation) {
  MethodBench bench;
  bench.projection("enc.0.self.q", 6, 6);
  bench.projection("enc.0.ffn.up", 8, 6);
  bench.projection("enc.0.ffn.down", 6, 8);
  Tuner& tuner = bench.attach("adalora", {{"sites", "*"},
                                          {"rank", 1},
                                          {"init_rank", 3},
                                          {"t_init", 2},
                                          {"t_final", 3},
                                          {"total_steps", 12},
                                          {"interval", 2},
                                          {"beta1", 0.8},
                                          {"beta2", 0.7}});
  const std::map<std::string, std::string> names{{"lora_A", "q"}, {"lora_E", "e"}, {"lora_B", "p"}};
  Pass pass;
  pass.training = true;
  for (const Json& step : golden().at("allocation")) {
    for (const auto& [key, value] : step.at("values").items()) {
      const std::string name = own_name(key, names);
      const Tensor parameter = bench.parameter_of(name);
      bench.set(name, tensor_of(value).reshape(parameter.sizes()));
      parameter.mutable_grad() = tensor_of(step.at("gradients").at(key)).reshape(parameter.sizes());
    }
    tuner.after_backward(pass);
    tuner.after_step(pass);
    for (const std::pair<const std::string, std::string>& site : kSites) {
      const Tensor e = bench.parameter_of(site.second + "/e");
      for (int64_t k = 0; k < 3; ++k)
        EXPECT_EQ(at1(e, k) != 0, step.at("kept").at(site.first).at(static_cast<size_t>(k)) == 1)
            << "step " << pass.step + 1 << ", " << site.second << ", " << k;
    }
    ++pass.step;
  }
}

}  // namespace peft_definitions_test
}  // namespace attune
