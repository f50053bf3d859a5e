#include "metrics/classification.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"

namespace attune {
namespace classification_test {

// Known answers below: scikit-learn 1.9.1, zero_division=0.
const std::vector<int64_t> kGoldIds = {0, 0, 1, 1, 2, 2, 2, 4, 4, 0, 1, 2, 5, 5, 0, 2, 1, 1};
const std::vector<int64_t> kPredictedIds = {0, 1, 1, 2, 2, 2, 0, 4, 3, 0, 1, 1, 0, 5, 0, 2, 1, 3};

void expect_all_near(const std::vector<double>& found, const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-12) << i;
}

TEST(ClassificationReport, EqualsScikitLearnWithLabelsThatNeverOccur) {
  const ClassificationReport report = classification_report(kGoldIds, kPredictedIds, 7);
  EXPECT_NEAR(report.accuracy, 0.6111111111111112, 1e-12);
  EXPECT_NEAR(report.macro_f1, 0.5444444444444444, 1e-12);
  EXPECT_NEAR(report.weighted_f1, 0.6481481481481483, 1e-12);
  EXPECT_NEAR(report.micro_f1, 0.6111111111111112, 1e-12);
  EXPECT_NEAR(report.matthews, 0.5139483020137893, 1e-12);
  expect_all_near(report.precision, {0.6, 0.6, 0.75, 0, 1, 1, 0});
  expect_all_near(report.recall, {0.75, 0.6, 0.6, 0, 0.5, 0.5, 0});
  const double two_thirds = 0.6666666666666666;
  expect_all_near(report.f1, {two_thirds, 0.6, two_thirds, 0, two_thirds, two_thirds, 0});
  EXPECT_EQ(report.support, (std::vector<int64_t>{4, 5, 5, 0, 2, 2, 0}));
  EXPECT_EQ(report.confusion[0], (std::vector<int64_t>{3, 1, 0, 0, 0, 0, 0}));
  EXPECT_EQ(report.confusion[1], (std::vector<int64_t>{0, 3, 1, 1, 0, 0, 0}));
}

TEST(ClassificationReport, BinaryMatthewsEqualsScikitLearn) {
  const ClassificationReport report =
      classification_report({1, 1, 1, 0, 0, 1, 0, 1}, {1, 0, 1, 0, 1, 1, 0, 1}, 2);
  EXPECT_NEAR(report.matthews, 0.4666666666666667, 1e-12);
}

TEST(ClassificationReport, ConstantPredictionHasMatthewsZero) {
  EXPECT_EQ(classification_report({1, 1, 0}, {1, 1, 1}, 2).matthews, 0);
}

void expect_label_error(const std::function<void()>& call, const std::string& text) {
  try {
    call();
    FAIL() << "no error, expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(ClassificationReport, BadLabelsAreNamed) {
  expect_label_error([] { classification_report({}, {}, 2); }, "0 gold and 0 predicted labels");
  expect_label_error(
      [] {
        classification_report({0}, {0, 1}, 2);
      },
      "1 gold and 2 predicted labels");
  expect_label_error(
      [] {
        classification_report({0, 2}, {0, 1}, 2);
      },
      "the gold label of row 1 is 2, expected an id from 0 to 1");
  expect_label_error(
      [] {
        classification_report({0, 1}, {0, -1}, 2);
      },
      "the predicted label of row 1 is -1");
}

TEST(MultilabelReport, EqualsScikitLearn) {
  const MultilabelReport report = multilabel_report(
      {{1, 0, 0, 1}, {0, 0, 0, 0}, {1, 1, 0, 0}, {0, 1, 0, 1}, {1, 0, 0, 0}, {0, 0, 0, 1}},
      {{1, 0, 0, 0}, {0, 0, 0, 0}, {1, 1, 1, 0}, {0, 1, 0, 1}, {0, 1, 0, 0}, {0, 0, 1, 1}});
  EXPECT_NEAR(report.micro_f1, 0.7058823529411765, 1e-12);
  EXPECT_NEAR(report.macro_f1, 0.6000000000000001, 1e-12);
  EXPECT_NEAR(report.weighted_f1, 0.8, 1e-12);
  EXPECT_NEAR(report.samples_f1, 0.5222222222222223, 1e-12);
  EXPECT_NEAR(report.accuracy, 0.3333333333333333, 1e-12);
  expect_all_near(report.precision, {1, 0.6666666666666666, 0, 1});
  expect_all_near(report.recall, {0.6666666666666666, 1, 0, 0.6666666666666666});
  expect_all_near(report.f1, {0.8, 0.8, 0, 0.8});
  EXPECT_EQ(report.support, (std::vector<int64_t>{3, 2, 0, 3}));
}

TEST(MultilabelReport, UnequalShapesAreNamed) {
  expect_label_error([] { multilabel_report({{1, 0}}, {}); }, "1 gold and 0 predicted rows");
  expect_label_error(
      [] {
        multilabel_report({{1, 0}, {1}}, {{1, 0}, {1, 0}});
      },
      "row 1 has 1 gold and 2 predicted labels, expected 2");
}

}  // namespace classification_test
}  // namespace attune
