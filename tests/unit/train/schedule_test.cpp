#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace attune {
namespace schedule_test {

TEST(Schedule, LinearRisesOverTheWarmUpAndFallsToZero) {
  const Schedule schedule{Schedule::Kind::Linear, 0.1, 0};
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 0), 0);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0.05, 5), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0.1, 10), 1);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0.55, 55), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 1, 100), 0);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 1.2, 120), 0) << "never below zero";
}

TEST(Schedule, CosineFollowsHalfACosineAfterTheWarmUp) {
  const Schedule schedule{Schedule::Kind::Cosine, 0.2, 0};
  for (const double progress : {0.2, 0.3, 0.6, 0.9, 1.0})
    EXPECT_NEAR(schedule_factor(schedule, progress, 1),
                0.5 * (1 + std::cos(M_PI * (progress - 0.2) / 0.8)), 1e-12);
}

TEST(Schedule, ConstantStaysAfterTheWarmUp) {
  const Schedule schedule{Schedule::Kind::Constant, 0.5, 0};
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0.25, 1), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0.75, 1), 1);
  EXPECT_DOUBLE_EQ(schedule_factor({Schedule::Kind::Constant, 0, 0}, 0, 0), 1);
}

TEST(Schedule, AfterWarmUpStepsTheFallBeginsAtThePeak) {
  constexpr double kSteps = 1000;
  for (const Schedule::Kind kind : {Schedule::Kind::Linear, Schedule::Kind::Cosine}) {
    const Schedule steps{kind, 0, 100}, share{kind, 0.1, 0};
    for (int64_t step = 100; step < 1000; step += 60) {
      const double progress = (static_cast<double>(step) + 0.5) / kSteps;
      EXPECT_NEAR(schedule_factor(steps, progress, step), schedule_factor(share, progress, step),
                  1e-12);
    }
    EXPECT_GT(schedule_factor(steps, 100.5 / kSteps, 100), 0.999);
  }
}

TEST(Schedule, WarmUpStepsTakeTheMiddleOfEachStep) {
  const Schedule schedule{Schedule::Kind::Constant, 0, 4};
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 0), 0.125);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 3), 0.875);
  EXPECT_DOUBLE_EQ(schedule_factor(schedule, 0, 4), 1);
}

TEST(Interval, CountsHowOftenItHasPassed) {
  const Clock clock{25, 400, 0.35, 7.5, 1.5};
  EXPECT_EQ(times_passed({Interval::Kind::Never, 1}, clock), 0);
  EXPECT_EQ(times_passed({Interval::Kind::Share, 0.1}, clock), 3);
  EXPECT_EQ(times_passed({Interval::Kind::Steps, 10}, clock), 2);
  EXPECT_EQ(times_passed({Interval::Kind::Examples, 100}, clock), 4);
  EXPECT_EQ(times_passed({Interval::Kind::Minutes, 5}, clock), 1);
  EXPECT_EQ(times_passed({Interval::Kind::Epochs, 0.5}, clock), 3);
  EXPECT_EQ(times_passed({Interval::Kind::Steps, 0}, clock), 0);
  EXPECT_EQ(times_passed({Interval::Kind::Share, 0.1}, {0, 0, 0.1 + 0.1 + 0.1, 0, 0}), 3)
      << "rounding does not matter";
}

}  // namespace schedule_test
}  // namespace attune
