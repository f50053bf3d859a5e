// Every ordered pair of methods in one set.
#include "core/attachment.h"
#include "methods.h"

namespace attune {
namespace {

using namespace tiny;

/// Trained tensors of one tuner: thawed ones by site alone, since tuners of one model share them.
std::set<std::string> trained_by(const Recorder& recorder, const std::string& tuner) {
  std::set<std::string> names;
  for (const Owned& owned : recorder.owned()) {
    if (owned.role == Owned::Role::Parameter) names.insert(tuner + "/" + owned.name);
    if (owned.role == Owned::Role::Thawed) names.insert(owned.name);
  }
  return names;
}

bool excluded(const Entry<Tuner>& a, const Entry<Tuner>& b) {
  return a.excludes.count(b.name) > 0 || b.excludes.count(a.name) > 0;
}

class Pair {
 public:
  Pair(const std::string& architecture, const Entry<Tuner>& first, const Entry<Tuner>& second)
      : first_(first), second_(second), registry_(methods()), model_(new_model(architecture)) {
    adaptation_ = std::make_unique<Adaptation>(*model_, registry_, 1);
    adaptation_->add("default", tiny_spec(first_));
    adaptation_->add("default", tiny_spec(second_));
    batch_ = batch_of(*model_, {5, 1, 7, 3});
  }
  static std::unique_ptr<Model> new_model(const std::string& architecture) {
    HeadRequest head;
    head.kind = HeadKind::Sequence;
    head.labels = 3;
    return model_of(architecture, head);
  }
  void check_trained_parameters() const {
    const std::vector<const Recorder*> recorders = adaptation_->recorders("default");
    std::set<std::string> expected = trained_by(*recorders[0], "0");
    expected.merge(trained_by(*recorders[1], "1"));
    EXPECT_EQ(adaptation_->trainable().size(), expected.size());
    for (const size_t position : {size_t{0}, size_t{1}}) {
      Adaptation alone(*model_, registry_, 1);
      alone.add("default", tiny_spec(position == 0 ? first_ : second_));
      EXPECT_EQ(trained_by(*alone.recorders("default")[0], std::to_string(position)),
                trained_by(*recorders[position], std::to_string(position)));
    }
  }
  /// Removes the tuner at `position`; the other must stay as it was, in its tensors and in what the model computes.
  void check_removal(int position, const std::string& architecture) {
    const std::string gone = std::to_string(position) + ".", kept = std::to_string(1 - position) + ".";
    Values before;
    for (const Values::value_type& entry : copies(*adaptation_, "default"))
      if (entry.first.compare(0, 2, kept) == 0) before["0." + entry.first.substr(2)] = entry.second;
    adaptation_->remove("default", position);
    EXPECT_TRUE(same(copies(*adaptation_, "default"), before));
    const std::unique_ptr<Model> other = new_model(architecture);
    Adaptation alone(*other, registry_, 5);
    alone.restore("default", adaptation_->manifest("default"), {before.begin(), before.end()}, "test");
    EXPECT_TRUE(same(everything(*other, batch_), everything(*model_, batch_)));
  }

  const Entry<Tuner>& first_;
  const Entry<Tuner>& second_;
  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Adaptation> adaptation_;
  Batch batch_;
};

class MethodPairs : public ::testing::TestWithParam<MethodCase> {};

TEST_P(MethodPairs, TrainTogetherAndComeApartExactly) {
  const std::string architecture = GetParam().architecture;
  const Registry<Tuner> registry = methods();
  const Entry<Tuner>& first = registry.at(GetParam().method);
  for (const Entry<Tuner>& second : registry.all()) {
    SCOPED_TRACE(first.name + " then " + second.name);
    if (excluded(first, second)) continue;
    Pair(architecture, first, second).check_trained_parameters();
    for (const int removed : {0, 1}) {
      Pair pair(architecture, first, second);
      const Values weights = base_tensors(*pair.model_);
      const Values base = everything(*Pair::new_model(architecture), pair.batch_);
      const std::pair<double, double> losses = train(*pair.model_, *pair.adaptation_, pair.batch_, 5, 0.01);
      EXPECT_LT(losses.second, losses.first);
      EXPECT_TRUE(same(base_tensors(*pair.model_), weights));
      pair.check_removal(removed, architecture);
      pair.adaptation_->remove("default", 0);
      EXPECT_TRUE(same(everything(*pair.model_, pair.batch_), base));
    }
  }
}

TEST_P(MethodPairs, PackedEqualsOneByOne) {
  const Registry<Tuner> registry = methods();
  const Entry<Tuner>& first = registry.at(GetParam().method);
  for (const Entry<Tuner>& second : registry.all()) {
    SCOPED_TRACE(first.name + " then " + second.name);
    if (excluded(first, second)) continue;
    Pair pair(GetParam().architecture, first, second);
    disturb(*pair.adaptation_);
    const Batch batch = training(pair.batch_);
    const Tensor packed = logits(*pair.model_, batch);
    for (int64_t b = 0; b < packed.size(0); ++b)
      EXPECT_LE(distance(logits(*pair.model_, single(*pair.model_, batch, b)), packed.slice(0, b, b + 1)), 1e-12);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MethodPairs, ::testing::ValuesIn(every_case()), case_name);

}  // namespace
}  // namespace attune
