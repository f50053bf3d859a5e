// What a logged step says beside its loss.
#include "support/toy_run.h"

namespace attune {
namespace trainer_log_test {

Json first_record(const ToyRun::Named& methods, const ToyRun::Named& policies, int64_t accumulate) {
  ToyRun run(methods, policies);
  run.config.accumulate = accumulate;
  return run.train().history.at(0);
}

TEST(LoggedLoss, HasNoPartsWhenItIsOne) {
  EXPECT_FALSE(first_record({{"full", Json::object()}}, {}, 1).contains("loss_parts"));
}

TEST(LoggedLoss, APolicysPartIsDividedAsTheLossIs) {
  // At no distance the loss there is the loss here: loss + weight * loss.
  for (const int64_t accumulate : {1, 2}) {
    const Json record =
        first_record({{"full", Json::object()}},
                     {{"adversarial", Json{{"epsilon", 1e-9}, {"weight", 3}}}}, accumulate);
    EXPECT_NEAR(record["loss"].get<double>(), 4 * record["loss_parts"]["adversarial"].get<double>(),
                1e-5);
  }
  const Json same = first_record({{"full", Json::object()}}, {{"r_drop", Json::object()}}, 1);
  EXPECT_NEAR(same["loss_parts"]["r_drop"].get<double>(), 0, 1e-9) << "without dropout";
}

TEST(LoggedLoss, WhatMethodsAddIsThePenalty) {
  const auto record = [](double weight) {
    return first_record(
        {{"adalora",
          Json{{"sites", "*.[qv]"}, {"rank", 2}, {"init_rank", 3}, {"orthogonal", weight}}}},
        {}, 2);
  };
  const Json with = record(0.5), without = record(0);
  const double penalty = with["loss"].get<double>() - without["loss"].get<double>();
  EXPECT_GT(penalty, 0.01);
  EXPECT_NEAR(with["loss_parts"]["penalty"].get<double>(), penalty, 1e-5);
}

}  // namespace trainer_log_test
}  // namespace attune
