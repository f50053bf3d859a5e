// What every method promises on every architecture. Driven from the registries: a new method is
// checked by its line in methods.def.
#include "methods.h"

#include "base/text.h"
#include "core/attachment.h"
#include "tensor/autograd.h"
#include "train/adapter_files.h"

namespace attune {
namespace methods_test {

using namespace tiny;

class Methods : public MethodTest {};

TEST_P(Methods, TheStartIsAsDeclared) {
  const Values before = everything(*model_, batch_);
  adapt();
  double worst = 0;
  for (const Values::value_type& entry : everything(*model_, batch_))
    worst = std::max(worst, distance(entry.second, before.at(entry.first)));
  if (entry().identity_at_start) {
    EXPECT_LE(worst, 1e-12);
  } else {
    EXPECT_GT(worst, 1e-12);
  }
}

TEST_P(Methods, GradientsReachItsParametersAndOnlyThose) {
  adapt();
  disturb(*adaptation_);
  backward(loss(*model_, batch_, adaptation_.get()));
  for (const Param& param : adaptation_->trainable()) {
    ASSERT_TRUE(param.value.grad().defined()) << param.name;
    // A key bias adds the same to every score of a row, so its gradient is zero but for rounding.
    if (param.name.find(".k/bias") != std::string::npos) continue;
    EXPECT_GT(param.value.grad().abs().max().item<double>(), 1e-12) << param.name;
  }
  for (size_t i = 0; i < model_->slots(); ++i) {
    EXPECT_FALSE(model_->slot_at(i).weight.requires_grad());
    EXPECT_FALSE(model_->slot_at(i).weight.grad().defined());
    EXPECT_FALSE(model_->slot_at(i).bias.defined() && model_->slot_at(i).bias.requires_grad());
  }
}

TEST_P(Methods, RecomputedBlocksGiveTheSameLossAndGradients) {
  const auto run = [&](int recompute) {
    const std::unique_ptr<Model> model = new_model(kernels::DType::F64, recompute);
    Adaptation adaptation(*model, registry_, 1);
    adaptation.add("default", with_dropout());
    disturb(adaptation);
    const Tensor value = loss(*model, training(batch_), &adaptation);
    backward(value, recompute != 0);
    Values result = copies(adaptation, "default");  // with running statistics
    result["loss"] = value.detach();
    for (const Param& param : adaptation.trainable())
      if (param.value.grad().defined()) result[param.name] = param.value.grad().clone();
    return result;
  };
  const Values kept = run(0);
  for (const int blocks : {-1, 1}) {
    const Values again = run(blocks);
    ASSERT_EQ(again.size(), kept.size());
    for (const Values::value_type& entry : kept)
      EXPECT_LE(distance(again.at(entry.first), entry.second), 1e-13) << entry.first;
  }
}

TEST_P(Methods, ItsStrengthScalesOrItSaysThatItHasNone) {
  for (size_t i = 0; i < model_->slots(); ++i)
    model_->slot_at(i).fresh = false;  // a new head has no base to go back to
  const Tensor base = logits(*model_, batch_);
  Values at;
  for (const double strength : {1.0, 0.5, 0.0}) {
    adapt();
    disturb(*adaptation_);
    try {
      adaptation_->scale("default", strength);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Unsupported);
      EXPECT_NE(std::string(error.what()).find("of method " + method() + " has no strength"),
                std::string::npos)
          << error.what();
      return;
    }
    const Tensor first = logits(*model_, batch_);
    EXPECT_TRUE(same_bits(logits(*model_, batch_), first)) << "every pass acts alike";
    at[std::to_string(strength)] = first;
    if (strength == 0.5) {
      disturb(*adaptation_);
      EXPECT_GT(distance(logits(*model_, batch_), first), 1e-9) << "new values are not seen";
    }
    const Tensor last = logits(*model_, batch_);
    if (merges()) {
      EXPECT_LE(distance(logits(*model_, batch_), last), 1e-10);
    }
    adaptation_.reset();
  }
  const Tensor whole = at.at(std::to_string(1.0)), half = at.at(std::to_string(0.5));
  EXPECT_LE(distance(at.at(std::to_string(0.0)), base), 1e-12);
  EXPECT_GT(distance(half, whole), 1e-9);
  EXPECT_GT(distance(half, base), 1e-9);
}

TEST_P(Methods, TrainingLeavesTheBaseBitIdenticalAndRemovalGivesItBack) {
  const Values base = base_tensors(*model_), outputs = everything(*model_, batch_);
  adapt();
  train(*model_, *adaptation_, training(batch_), 3, 0.01);
  EXPECT_TRUE(same(base_tensors(*model_), base));
  EXPECT_FALSE(same(everything(*model_, batch_), outputs));
  adaptation_->remove("default");
  EXPECT_TRUE(model_->plan().empty());
  EXPECT_TRUE(same(everything(*model_, batch_), outputs));
  EXPECT_TRUE(adaptation_->trainable().empty());
}

TEST_P(Methods, TheDestructorDetachesIt) {
  const Values outputs = everything(*model_, batch_);
  adapt();
  disturb(*adaptation_);
  adaptation_.reset();
  EXPECT_TRUE(same(everything(*model_, batch_), outputs));
}

TEST_P(Methods, SavedAndLoadedIsExact) {
  const Folder folder;
  adapt();
  disturb(*adaptation_);
  const Values outputs = everything(*model_, batch_);
  AdapterCard card;
  card.base = "tiny";
  card.fingerprint = "abc";
  save_adapter(*adaptation_, "default", card, folder.file("adapter"));
  const std::unique_ptr<Model> other = new_model(kernels::DType::F64);
  Adaptation loaded(*other, registry_, 99);  // another seed: nothing may depend on it
  load_adapter(loaded, "default", folder.file("adapter"), "abc");
  EXPECT_TRUE(same(copies(loaded, "default"), copies(*adaptation_, "default")));
  EXPECT_TRUE(same(everything(*other, batch_), outputs));
}

TEST_P(Methods, DisablingIsExact) {
  const Values base = everything(*model_, batch_);
  adapt();
  disturb(*adaptation_);
  const Values adapted = everything(*model_, batch_);
  EXPECT_FALSE(same(adapted, base));
  adaptation_->enable("default", false);
  EXPECT_TRUE(same(everything(*model_, batch_), base));
  adaptation_->enable("default", true);
  EXPECT_TRUE(same(everything(*model_, batch_), adapted));
}

/// Merges in one precision and compares; a method that does not fold must say so and change
/// nothing.
void check_merge(Model& model, Adaptation& adaptation, const Batch& batch,
                 const std::string& method, double tolerance) {
  const Values weights = base_tensors(model);
  const Tensor unmerged = logits(model, batch);
  bool folded = true;
  try {
    adaptation.merge("default");
  } catch (const Error& error) {
    folded = false;
    EXPECT_EQ(error.code(), ErrorCode::Unsupported) << error.what();
    EXPECT_NE(std::string(error.what()).find(method), std::string::npos) << error.what();
  }
  if (folded) {
    EXPECT_FALSE(same(base_tensors(model), weights));
    EXPECT_LE(distance(logits(model, batch), unmerged), tolerance);
  }
  adaptation.unmerge();
  EXPECT_TRUE(same(base_tensors(model), weights));
  adaptation.enable("default", true);
  EXPECT_TRUE(same_bits(logits(model, batch), unmerged));
}

TEST_P(Methods, MergedEqualsUnmergedAndUnmergingIsExact) {
  adapt();
  disturb(*adaptation_);
  check_merge(*model_, *adaptation_, batch_, method(), 1e-10);
  const std::unique_ptr<Model> narrow = new_model(kernels::DType::F32);
  Adaptation adaptation(*narrow, registry_, 1);
  adaptation.add("default", spec());
  disturb(adaptation);
  check_merge(*narrow, adaptation, batch_, method(), 1e-5);
}

TEST_P(Methods, ASecondMergeFoldsTheNewValuesInBf16) {
  const std::unique_ptr<Model> model = new_model(kernels::DType::BF16);
  Adaptation adaptation(*model, registry_, 1);
  adaptation.add("default", spec());
  for (int round = 0; round < 4; ++round) {
    disturb(adaptation, 0.2);
    const Tensor unmerged = logits(*model, batch_);
    try {
      adaptation.merge("default");
    } catch (const Error&) {
      return;  // does not fold: the test above looks at the message
    }
    EXPECT_LE(distance(logits(*model, batch_), unmerged), 6e-2) << "round " << round;
    adaptation.unmerge();
    adaptation.enable("default", true);
  }
}

TEST_P(Methods, TheLossFallsOnAToyTask) {
  adapt();
  const std::pair<double, double> result = train(*model_, *adaptation_, batch_, 20, 0.01);
  EXPECT_LT(result.second, 0.97 * result.first);
}

TEST_P(Methods, TheDeclaredCountIsTheCountedOne) {
  adapt();
  int64_t trainable = 0;
  std::set<int> touched;
  for (const Recorder* recorder : adaptation_->recorders("default")) {
    for (const Owned& owned : recorder->owned()) touched.insert(owned.site);
    for (const std::pair<int, Edit>& edit : recorder->edits()) touched.insert(edit.first);
  }
  for (const Param& param : adaptation_->trainable())
    trainable += param.mask.defined()
                     ? param.mask.to(at::kBool).expand_as(param.value).sum().item<int64_t>()
                     : param.value.numel();
  EXPECT_EQ(adaptation_->cost().trainable + adaptation_->cost().head, trainable);
  if (!entry().count) return;
  std::vector<Site> sites;
  for (const int id : touched)
    if (id >= 0) sites.push_back(model_->sites()[static_cast<size_t>(id)]);
  const Options options(entry().options, Node::from_json(spec().options, {"tiny", 0, 0}), "tiny");
  EXPECT_EQ(entry().count(sites, options), trainable);
}

TEST_P(Methods, PackedEqualsOneByOne) {
  adapt(with_dropout());
  disturb(*adaptation_);
  for (const bool train : {false, true}) {
    const Batch batch = train ? training(batch_) : batch_;
    const Tensor packed = logits(*model_, batch);
    for (int64_t b = 0; b < packed.size(0); ++b)
      EXPECT_LE(distance(logits(*model_, single(*model_, batch, b)), packed.slice(0, b, b + 1)),
                1e-12)
          << "sequence " << b << (train ? " in training" : "");
  }
}

TEST_P(Methods, GradientsAreThoseOfFiniteDifferences) {
  adapt(with_dropout());
  disturb(*adaptation_);
  check_gradients(*model_, *adaptation_, batch_, 2);
  check_gradients(*model_, *adaptation_, training(batch_), 0);
}

TEST_P(Methods, AGlobThatMatchesNothingIsAReadableError) {
  if (!has_option("sites")) GTEST_SKIP() << "has no option sites";
  TunerSpec wrong = spec();
  wrong.options["sites"] = Json::array({"*.self.zz"});
  Adaptation adaptation(*model_, registry_, 1);
  const std::string text =
      error_text(ErrorCode::BadInput, [&] { adaptation.add("default", wrong); });
  EXPECT_NE(text.find("\"*.self.zz\" matches nothing"), std::string::npos) << text;
  EXPECT_NE(text.find(".self."), std::string::npos) << text;
  EXPECT_TRUE(adaptation.sets().empty()) << "a failed add leaves no set behind";
  EXPECT_TRUE(model_->plan().empty());
}

TEST_P(Methods, ARankLargerThanTheMatrixIsAReadableError) {
  if (!has_option("rank")) GTEST_SKIP() << "has no option rank";
  TunerSpec wrong = spec();
  wrong.options["rank"] = 1000;
  Adaptation adaptation(*model_, registry_, 1);
  const std::string text =
      error_text(ErrorCode::BadInput, [&] { adaptation.add("default", wrong); });
  EXPECT_NE(text.find("rank 1000"), std::string::npos) << text;
  EXPECT_NE(text.find("at most"), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(All, Methods, ::testing::ValuesIn(every_case()), case_name);

}  // namespace methods_test
}  // namespace attune
