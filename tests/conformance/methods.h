#pragma once
#include "base/error.h"
#include "methods/registry.h"
#include "recipe/yaml.h"
#include "tiny.h"

namespace attune::tiny {

struct MethodCase {
  std::string architecture, method;
};

inline void PrintTo(const MethodCase& value, std::ostream* out) {
  *out << value.architecture << " " << value.method;
}

inline std::vector<MethodCase> every_case() {
  std::vector<MethodCase> cases;
  for (const std::string& architecture : architecture_names())
    for (const std::string& method : methods().names()) cases.push_back({architecture, method});
  return cases;
}
inline std::string case_name(const ::testing::TestParamInfo<MethodCase>& info) {
  return info.param.architecture + "_" + info.param.method;
}

/// The method with its options for these suites.
inline TunerSpec tiny_spec(const Entry<Tuner>& entry) {
  Json options = parse_yaml(entry.tiny, "tiny options of " + entry.name).to_json();
  return {entry.name, options.is_object() ? options : Json::object()};
}

/// A tiny sequence classifier in double precision, a batch, and the method under test.
class MethodTest : public ::testing::TestWithParam<MethodCase> {
 protected:
  MethodTest() : registry_(attune::methods()) {
    model_ = new_model(kernels::DType::F64);
    batch_ = batch_of(*model_, {5, 1, 7, 3, 2, 6});
  }
  std::unique_ptr<Model> new_model(kernels::DType type, int recompute = 0) const {
    HeadRequest head;
    head.kind = HeadKind::Sequence;
    head.labels = 3;
    return model_of(GetParam().architecture, head, type, Json::object(), recompute);
  }
  const std::string& method() const { return GetParam().method; }
  const Entry<Tuner>& entry() const { return registry_.at(method()); }
  TunerSpec spec() const { return tiny_spec(entry()); }
  bool has_option(const std::string& name) const {
    for (const Option& option : entry().options)
      if (option.name == name) return true;
    return false;
  }
  TunerSpec with_dropout() const {
    TunerSpec result = spec();
    if (has_option("dropout")) result.options["dropout"] = 0.25;
    return result;
  }
  void adapt(const TunerSpec& spec) {
    adaptation_ = std::make_unique<Adaptation>(*model_, registry_, 1);
    adaptation_->add("default", spec);
  }
  void adapt() { adapt(spec()); }
  /// Merges adaptation_; false where that is refused because the method cannot be merged.
  bool merges() {
    try {
      adaptation_->merge("default");
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported) << error.what();
      return false;
    }
  }

  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  Batch batch_;
  std::unique_ptr<Adaptation> adaptation_;  // goes before the model it is attached to
};

}  // namespace attune::tiny
