// Seeded random stacks of three to five methods, on every architecture in turn.
#include "base/random.h"
#include "methods.h"
#include "train/adapter_files.h"

namespace attune {
namespace method_stacks_test {

using namespace tiny;

constexpr int kStacks = 200;

std::unique_ptr<Model> classifier(const std::string& architecture) {
  HeadRequest head;
  head.kind = HeadKind::Sequence;
  head.labels = 3;
  return model_of(architecture, head);
}

/// Three to five different methods that go together, by the stack's number.
std::vector<std::string> methods_of(const Registry<Tuner>& registry, int stack) {
  const Stream64 stream = Stream64(3, "stacks").with(static_cast<uint64_t>(stack));
  const std::vector<int64_t> order =
      stream.with("order").permutation(static_cast<int64_t>(registry.all().size()));
  const size_t length = 3 + stream.below(0, 3);
  std::vector<std::string> chosen;
  for (const int64_t at : order) {
    const Entry<Tuner>& entry = registry.all()[static_cast<size_t>(at)];
    bool goes = true;
    for (const std::string& other : chosen)
      goes = goes && entry.excludes.count(other) == 0 &&
             registry.at(other).excludes.count(entry.name) == 0;
    if (goes) chosen.push_back(entry.name);
    if (chosen.size() == length) break;
  }
  return chosen;
}

class RandomStacks : public ::testing::TestWithParam<int> {};

TEST_P(RandomStacks, TrainLoadAndComeApartExactly) {
  const Registry<Tuner> registry = methods();
  const std::vector<std::string> architectures = architecture_names();
  const std::string architecture =
      architectures[static_cast<size_t>(GetParam()) % architectures.size()];
  const std::unique_ptr<Model> model = classifier(architecture);
  const Batch batch = batch_of(*model, {5, 1, 7, 3});
  const Values base = everything(*model, batch), weights = base_tensors(*model);
  Adaptation adaptation(*model, registry, 1);
  int64_t separate = 0;
  std::string names;
  for (const std::string& name : methods_of(registry, GetParam())) {
    names += name + " ";
    adaptation.add("default", tiny_spec(registry.at(name)));
    const std::unique_ptr<Model> other = classifier(architecture);
    Adaptation alone(*other, registry, 1);
    alone.add("default", tiny_spec(registry.at(name)));
    const Cost cost = alone.cost();
    separate += cost.trainable + cost.head;
  }
  SCOPED_TRACE(architecture + ": " + names);
  const Cost cost = adaptation.cost();
  EXPECT_LE(cost.trainable + cost.head, separate);  // tensors that two methods train count once
  const std::pair<double, double> losses = train(*model, adaptation, batch, 5, 0.005);
  EXPECT_LT(losses.second, losses.first);
  EXPECT_TRUE(same(base_tensors(*model), weights));
  const Batch stepped = training(batch);
  const Tensor packed = logits(*model, stepped);
  for (int64_t b = 0; b < packed.size(0); ++b)
    EXPECT_LE(distance(logits(*model, single(*model, stepped, b)), packed.slice(0, b, b + 1)),
              1e-11);
  const Folder folder;
  save_adapter(adaptation, "default", {}, folder.file("adapter"));
  const std::unique_ptr<Model> other = classifier(architecture);
  Adaptation loaded(*other, registry, 5);
  load_adapter(loaded, "default", folder.file("adapter"), "");
  EXPECT_TRUE(same(everything(*other, batch), everything(*model, batch)));
  adaptation.remove("default");
  EXPECT_TRUE(same(everything(*model, batch), base));
}

INSTANTIATE_TEST_SUITE_P(Seeded, RandomStacks, ::testing::Range(0, kStacks));

}  // namespace method_stacks_test
}  // namespace attune
