// What every architecture promises, with every head it offers. Driven from the registry.
#include "base/text.h"
#include "io/checkpoint.h"
#include "methods.h"
#include "tensor/autograd.h"

namespace attune {
namespace architectures_test {

using namespace tiny;

struct HeadCase {
  std::string architecture, name;
  HeadRequest head;
};

void PrintTo(const HeadCase& value, std::ostream* out) {
  *out << value.architecture << " " << value.name;
}

std::string head_name(const HeadRequest& head) {
  const char* const names[] = {"none", "sequence", "token", "span", "masked_lm", "lm"};
  const std::string name = names[static_cast<size_t>(head.kind)];
  return head.kind == HeadKind::Sequence || head.pool != "auto" ? name + "_" + head.pool : name;
}

std::vector<HeadCase> head_cases() {
  std::vector<HeadCase> cases;
  for (const std::string& architecture : architecture_names())
    for (const HeadRequest& head : architectures().at(architecture).make(Options())->heads())
      cases.push_back({architecture, head_name(head), head});
  return cases;
}

class Architectures : public ::testing::TestWithParam<HeadCase> {
 protected:
  Architectures() : registry_(methods()), model_(make(kernels::DType::F64)) {
    batch_ = batch_of(*model_, {5, 1, 7, 3});
  }
  std::unique_ptr<Model> make(kernels::DType type) const {
    return model_of(GetParam().architecture, GetParam().head, type);
  }
  bool has_head() const { return GetParam().head.kind != HeadKind::None; }

  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  Batch batch_;
};

TEST_P(Architectures, EveryBaseGradientIsThatOfFiniteDifferences) {
  Adaptation adaptation(*model_, registry_, 1);
  adaptation.add("default", {"full", Json::object()});
  check_gradients(*model_, adaptation, batch_, 2);
}

TEST_P(Architectures, EveryWeightSiteIsReachable) {
  Adaptation adaptation(*model_, registry_, 1);
  adaptation.add("default", {"full", Json::object()});
  backward(loss(*model_, batch_));
  std::set<int> reached;
  for (const Param& param : adaptation.trainable()) {
    const Site& site = model_->site(split(param.name, '/')[2]);
    ASSERT_TRUE(param.value.grad().defined()) << param.name;
    if (param.value.grad().abs().max().item<double>() > 1e-12) reached.insert(site.storage);
  }
  for (const Site& site : model_->sites()) {
    if (site.kind != SiteKind::Weight) continue;
    EXPECT_TRUE(reached.count(site.storage)) << site.name;
  }
}

TEST_P(Architectures, EveryRowsAndHeadsSiteCarriesAValue) {
  const Values values = everything(*model_, batch_);
  for (const Site& site : model_->sites()) {
    if (site.kind != SiteKind::Rows && site.kind != SiteKind::Heads) continue;
    ASSERT_TRUE(values.count(site.name)) << site.name;
    const Tensor value = values.at(site.name);
    EXPECT_EQ(value.numel() / value.size(0), site.out) << site.name;
  }
}

TEST_P(Architectures, NothingIsCapturedThatWasNotAskedFor) {
  at::NoGradGuard no_grad;
  EXPECT_TRUE(model_->forward(batch_, {}).captured.empty());
  const Output output = model_->forward(batch_, {{"final"}, true});
  EXPECT_EQ(output.captured.size(), 1u);
  EXPECT_EQ(output.captured.count("final"), 1u);
}

TEST_P(Architectures, EveryCheckpointTensorBelongsToExactlyOneSite) {
  const Folder folder;
  std::filesystem::create_directories(folder.file("model"));
  write_model(*model_, "", folder.file("model"), Json::object());
  std::map<std::string, int> owners;
  for (size_t i = 0; i < model_->slots(); ++i) {
    ++owners[model_->slot_at(i).weight_name];
    if (model_->slot_at(i).bias.defined()) ++owners[model_->slot_at(i).bias_name];
  }
  const Checkpoint checkpoint(folder.file("model"));
  EXPECT_EQ(checkpoint.names().size(), owners.size());
  for (const std::string& name : checkpoint.names()) EXPECT_EQ(owners[name], 1) << name;
  LoadOptions options;
  options.numerics.compute = kernels::DType::F64;
  options.head = GetParam().head;
  options.own_head = true;
  options.seed = 77;
  const LoadedModel loaded = load_model(folder.file("model"), options);
  EXPECT_TRUE(loaded.report.fresh.empty()) << join(loaded.report.fresh, ", ");
  EXPECT_TRUE(loaded.report.unexpected.empty()) << join(loaded.report.unexpected, ", ");
  EXPECT_TRUE(same(base_tensors(*loaded.model), base_tensors(*model_)));
  EXPECT_TRUE(same(everything(*loaded.model, batch_), everything(*model_, batch_)));
}

TEST_P(Architectures, PackedEqualsOneByOneAtEverySite) {
  for (const bool train : {false, true}) {
    const Batch batch = train ? training(batch_) : batch_;
    const Values packed = everything(*model_, batch);
    std::map<std::string, std::vector<Tensor>> singles;
    const int64_t count = static_cast<int64_t>(batch.fields.at("example").numel());
    for (int64_t b = 0; b < count; ++b)
      for (const Values::value_type& entry : everything(*model_, single(*model_, batch, b)))
        singles[entry.first].push_back(entry.second);
    for (const Values::value_type& entry : packed)
      EXPECT_LE(distance(at::cat(singles.at(entry.first)), entry.second), 1e-12)
          << entry.first << (train ? " in training" : "");
  }
}

TEST_P(Architectures, DropoutFollowsTheExampleAndTheStepAlone) {
  Batch batch = training(batch_);
  const Values first = everything(*model_, batch);
  EXPECT_TRUE(same(everything(*model_, batch), first));
  EXPECT_FALSE(same(everything(*model_, batch_), first)) << "training drops nothing";
  batch.pass.step += 1;
  EXPECT_FALSE(same(everything(*model_, batch), first));
}

TEST_P(Architectures, NarrowTypesStayNearDoublePrecision) {
  const Values exact = everything(*model_, batch_);
  for (const kernels::DType type : {kernels::DType::F32, kernels::DType::BF16}) {
    // Pre-norm stacks keep their residual stream in bf16, as transformers does; post-norm ones
    // round only what a norm has just made.
    const bool stream = dynamic_cast<const Transformer&>(*model_).spec().last().pre_norm;
    const double tolerance = type == kernels::DType::F32 ? 3e-5 : stream ? 6e-2 : 3e-2;
    const std::unique_ptr<Model> narrow = make(type);
    double worst = 0;
    std::string where;
    for (const Values::value_type& entry : everything(*narrow, batch_)) {
      const Tensor x = entry.second.to(at::kDouble), y = exact.at(entry.first);
      const double error = ((x - y).abs() / (1 + y.abs())).max().item<double>();
      if (error > worst) where = entry.first;
      worst = std::max(worst, error);
    }
    EXPECT_LE(worst, tolerance) << where;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Architectures, ::testing::ValuesIn(head_cases()),
                         [](const ::testing::TestParamInfo<HeadCase>& info) {
                           return info.param.architecture + "_" + info.param.name;
                         });

}  // namespace architectures_test
}  // namespace attune
