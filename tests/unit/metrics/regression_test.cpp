#include "metrics/regression.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace attune {
namespace regression_test {

const std::vector<double> kGoldValues = {1.5, 2.0, 2.0, 3.25, 4.75, 0.5, 5.0, 2.0, 3.25};
const std::vector<double> kPredictedValues = {1.0, 2.5, 1.75, 3.0, 5.0, 0.75, 4.0, 2.5, 2.5};

TEST(RegressionReport, EqualsScipyAndScikitLearn) {
  // scipy 1.17.1, scikit-learn 1.9.1.
  const RegressionReport report = regression_report(kGoldValues, kPredictedValues);
  EXPECT_NEAR(report.pearson.value(), 0.931052860895412, 1e-12);
  EXPECT_NEAR(report.spearman.value(), 0.9350736968767247, 1e-12);
  EXPECT_NEAR(report.mse, 0.2847222222222222, 1e-12);
  EXPECT_NEAR(report.mae, 0.4722222222222222, 1e-12);
}

TEST(Pearson, LargeOffsetsAndTinyScalesKeepTheirDigits) {
  // scipy 1.17.1.
  EXPECT_NEAR(pearson({1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 5}, {1e-9, 3e-9, 2e-9, 7e-9}).value(),
              0.9091237672046562, 1e-12);
}

TEST(Pearson, ConstantOrInfiniteInputHasNoCorrelation) {
  EXPECT_FALSE(pearson({1, 1, 1}, {1, 2, 3}).has_value());
  EXPECT_FALSE(spearman({1, 2, 3}, {0.1, 0.1, 0.1}).has_value());
  EXPECT_FALSE(pearson({1}, {1}).has_value());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(pearson({1, nan, 3}, {1, 2, 3}).has_value());
  EXPECT_FALSE(spearman({1, nan, 3}, {1, 2, 3}).has_value());
}

TEST(Spearman, MonotoneMapsHaveCorrelationOne) {
  EXPECT_EQ(spearman({1, 2, 3, 4}, {1, 10, 100, 1e30}).value(), 1);
  EXPECT_EQ(spearman({1, 2, 3, 4}, {4, 3, 2, -1}).value(), -1);
}

TEST(RegressionReport, UnequalLengthsAreNamed) {
  try {
    mean_squared_error({1, 2}, {1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "scoring regression: 2 gold and 1 predicted values, expected the same number, at "
                 "least one");
  }
}

}  // namespace regression_test
}  // namespace attune
