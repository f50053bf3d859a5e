// --adapter given several times: what they must agree on.
#include "e2e/workshop.h"

namespace attune {
namespace several_adapters_test {

using SeveralAdapters = Workshop;

std::vector<std::string> predict_with(const std::vector<std::string>& adapters) {
  std::vector<std::string> args{"predict", "model", "--text", "the happy house", "--quiet"};
  for (const std::string& adapter : adapters) args.insert(args.end(), {"--adapter", adapter});
  return args;
}

TEST_F(SeveralAdapters, TwoHeadsAreRefused) {
  ASSERT_EQ(train({"output=a", "train.steps=5"}).status, 0);
  ASSERT_EQ(train({"output=b", "train.steps=5", "train.lr=0.01"}).status, 0);
  expect_refused(attune(predict_with({"a", "b"})), 2,
                 {"the adapters a and b each have a head of their own (head.proj/weight), and only "
                  "one can act; give one of them at a time"});
  expect_refused(attune({"predict", "a", "--adapter", "b", "--text", "x", "--quiet"}), 2,
                 {"the adapters a and b each have a head of their own"});
  // Of one head there is nothing to choose.
  EXPECT_EQ(attune(predict_with({"a", "a"})).status, 0);
}

TEST_F(SeveralAdapters, LabelsInAnotherOrderAreRefused) {
  const std::vector<std::string> still{"train.steps=1", "train.lr=1e-30"};
  const auto run = [&](const std::string& output) {
    std::vector<std::string> sets = still;
    sets.push_back("output=" + output);
    return train(sets).status;
  };
  ASSERT_EQ(run("a"), 0);
  const Json first = json("a/adapter/attune.json")["task_state"]["labels"];
  ASSERT_EQ(first.size(), 2u);
  write("train.jsonl",
        Json{{"text", "x"}, {"label", first[1]}}.dump() + "\n" + classify_rows(60, 2));
  ASSERT_EQ(run("b"), 0);
  const Json second = json("b/adapter/attune.json")["task_state"]["labels"];
  ASSERT_EQ(second, (Json{first[1], first[0]}));
  expect_refused(attune(predict_with({"a", "b"})), 2,
                 {"the adapters a and b do not number the same labels alike: " + first.dump() +
                      " and " + second.dump(),
                  "train both with the same labels in the same order"});
}

TEST_F(SeveralAdapters, ChangesOfTheSameTensorsAddUp) {
  // The head stays exactly as drawn, so that both have the same one.
  const auto biases = [&](const std::string& output, const std::string& sites) {
    return train({"output=" + output, "train.steps=20", "train.lr=0.01",
                  "methods=[{bias: {sites: \"" + sites + "\"}}]",
                  "policies=[{tensor_lr: {tensors: \"*head.*\", scale: 1e-300}}]"});
  };
  const Outcome trained = biases("a", "enc.*");
  ASSERT_EQ(trained.status, 0) << trained.err;
  ASSERT_EQ(biases("b", "enc.0.*").status, 0);
  const auto scores = [&](const std::vector<std::string>& adapters) {
    const Outcome outcome = attune(predict_with(adapters));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(scores({"a", "b:0"}), scores({"a"}));
  EXPECT_EQ(scores({"b:0", "a"}), scores({"a"}));
  EXPECT_NE(scores({"a", "b"}), scores({"a"}));
  EXPECT_NE(scores({"a", "b"}), scores({"b"}));
}

}  // namespace several_adapters_test
}  // namespace attune
