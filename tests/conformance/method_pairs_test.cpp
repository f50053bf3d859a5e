// Every ordered pair of methods in one set.
#include <cstdlib>

#include "base/random.h"
#include "core/attachment.h"
#include "methods.h"
#include "train/adapter_files.h"

namespace attune {
namespace method_pairs_test {

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

/// Copies of a tuner's saved tensors, named as if it were the only one of its set.
Values owned_by(const Recorder& recorder, const std::string& method) {
  Values values;
  for (const Owned& owned : recorder.owned())
    if (owned.role != Owned::Role::State)
      values["0." + method + "/" + owned.name] = owned.value.detach().clone();
  return values;
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
  /// Removes the tuner at `position`; the other must stay as it was, in its tensors and in what the
  /// model computes.
  void check_removal(int position, const std::string& architecture) {
    const std::vector<const Recorder*> both = adaptation_->recorders("default");
    const Recorder* kept = both[static_cast<size_t>(1 - position)];
    const std::string method = position == 0 ? second_.name : first_.name;
    const Values before = owned_by(*kept, method);
    adaptation_->remove("default", position);
    EXPECT_EQ(adaptation_->recorders("default"), std::vector<const Recorder*>{kept});
    EXPECT_TRUE(same(owned_by(*kept, method), before));
    EXPECT_TRUE(same(copies(*adaptation_, "default"), before));
    const std::unique_ptr<Model> other = new_model(architecture);
    Adaptation alone(*other, registry_, 5);
    alone.restore("default", adaptation_->manifest("default"), {before.begin(), before.end()},
                  "test");
    EXPECT_TRUE(same(everything(*other, batch_), everything(*model_, batch_)));
  }

  const Entry<Tuner>& first_;
  const Entry<Tuner>& second_;
  Registry<Tuner> registry_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Adaptation> adaptation_;
  Batch batch_;
};

/// Every other method on the encoder; on the other architectures three of them, another three for
/// each method. ATTUNE_TEST_ALL=1: every one everywhere.
std::vector<std::string> partners(const MethodCase& one) {
  const std::vector<std::string> all = methods().names();
  const char* everything = std::getenv("ATTUNE_TEST_ALL");
  if (one.architecture == "bert" || (everything != nullptr && std::string(everything) == "1"))
    return all;
  const Stream64 stream = Stream64(7, "partners").with(one.architecture).with(one.method);
  const std::vector<int64_t> order = stream.permutation(static_cast<int64_t>(all.size()));
  std::vector<std::string> result;
  for (size_t i = 0; i < 3; ++i) result.push_back(all[static_cast<size_t>(order[i])]);
  return result;
}

class MethodPairs : public ::testing::TestWithParam<MethodCase> {};

TEST_P(MethodPairs, TrainTogetherAndComeApartExactly) {
  const std::string architecture = GetParam().architecture;
  const Registry<Tuner> registry = methods();
  const Entry<Tuner>& first = registry.at(GetParam().method);
  for (const std::string& name : partners(GetParam())) {
    const Entry<Tuner>& second = registry.at(name);
    SCOPED_TRACE(first.name + " then " + second.name);
    if (excluded(first, second)) continue;
    Pair(architecture, first, second).check_trained_parameters();
    for (const int removed : {0, 1}) {
      Pair pair(architecture, first, second);
      const Values weights = base_tensors(*pair.model_);
      const Values base = everything(*Pair::new_model(architecture), pair.batch_);
      const std::pair<double, double> losses =
          train(*pair.model_, *pair.adaptation_, pair.batch_, 5, 0.01);
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
  for (const std::string& name : partners(GetParam())) {
    const Entry<Tuner>& second = registry.at(name);
    SCOPED_TRACE(first.name + " then " + second.name);
    if (excluded(first, second)) continue;
    Pair pair(GetParam().architecture, first, second);
    disturb(*pair.adaptation_);
    const Batch batch = training(pair.batch_);
    const Tensor packed = logits(*pair.model_, batch);
    for (int64_t b = 0; b < packed.size(0); ++b)
      EXPECT_LE(
          distance(logits(*pair.model_, single(*pair.model_, batch, b)), packed.slice(0, b, b + 1)),
          1e-12);
  }
}

TEST_P(MethodPairs, SavedTogetherTheyLoadExactly) {
  const Registry<Tuner> registry = methods();
  const Entry<Tuner>& first = registry.at(GetParam().method);
  for (const std::string& name : partners(GetParam())) {
    const Entry<Tuner>& second = registry.at(name);
    SCOPED_TRACE(first.name + " then " + second.name);
    if (excluded(first, second)) continue;
    const Folder folder;
    Pair pair(GetParam().architecture, first, second);
    disturb(*pair.adaptation_);
    save_adapter(*pair.adaptation_, "default", {}, folder.file("adapter"));
    const std::unique_ptr<Model> other = Pair::new_model(GetParam().architecture);
    Adaptation loaded(*other, registry, 5);
    load_adapter(loaded, "default", folder.file("adapter"), "");
    EXPECT_TRUE(same(everything(*other, pair.batch_), everything(*pair.model_, pair.batch_)));
  }
}

TEST(Exclusions, AreFewAndSayWhy) {
  const Registry<Tuner> registry = methods();
  int64_t pairs = 0, refused = 0;
  for (const Entry<Tuner>& first : registry.all())
    for (const Entry<Tuner>& second : registry.all()) {
      ++pairs;
      refused += excluded(first, second) ? 1 : 0;
      for (const Entry<Tuner>* one : {&first, &second})
        for (const std::pair<const std::string, std::string>& partner : one->excludes)
          EXPECT_GT(partner.second.size(), 10U) << one->name << " and " << partner.first;
    }
  EXPECT_LT(static_cast<double>(refused), 0.03 * static_cast<double>(pairs));
}

INSTANTIATE_TEST_SUITE_P(All, MethodPairs, ::testing::ValuesIn(every_case()), case_name);

}  // namespace method_pairs_test
}  // namespace attune
