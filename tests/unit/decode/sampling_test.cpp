// Which tokens may be drawn, and with which probabilities.
#include "decode/sampling.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace attune {
namespace sampling_test {

/// Logits of probabilities 0.5, 0.05, 0.25, 0.2.
std::vector<double> logits() {
  return {std::log(0.5), std::log(0.05), std::log(0.25), std::log(0.2)};
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-12) << i;
}

TEST(TokenProbabilities, AreTheSoftmaxWithoutFilters) {
  expect_near(token_probabilities(logits(), {}), {0.5, 0.05, 0.25, 0.2});
}

TEST(TokenProbabilities, TemperatureRaisesThemToItsInverse) {
  const double sum = 0.25 + 0.0025 + 0.0625 + 0.04;
  expect_near(token_probabilities(logits(), {0.5, 1, 0}),
              {0.25 / sum, 0.0025 / sum, 0.0625 / sum, 0.04 / sum});
}

TEST(TokenProbabilities, TopKKeepsTheLikeliestAndTies) {
  expect_near(token_probabilities(logits(), {1, 1, 2}), {2.0 / 3, 0, 1.0 / 3, 0});
  expect_near(token_probabilities({1, 0, 0, -1}, {1, 1, 2}),
              {std::exp(1) / (std::exp(1) + 2), 1 / (std::exp(1) + 2), 1 / (std::exp(1) + 2), 0});
  expect_near(token_probabilities(logits(), {1, 1, 9}), {0.5, 0.05, 0.25, 0.2});
}

TEST(TokenProbabilities, TopPKeepsTheSmallestSetThatReachesIt) {
  expect_near(token_probabilities(logits(), {1, 0.7, 0}), {2.0 / 3, 0, 1.0 / 3, 0});
  expect_near(token_probabilities(logits(), {1, 0.9, 0}), {0.5 / 0.95, 0, 0.25 / 0.95, 0.2 / 0.95});
  expect_near(token_probabilities(logits(), {1, 1e-9, 0}), {1, 0, 0, 0});
  // After top_k, probabilities are of what is left.
  expect_near(token_probabilities(logits(), {1, 0.6, 2}), {1, 0, 0, 0});
}

TEST(DrawToken, FollowsTheProbabilities) {
  const std::vector<double> probabilities = token_probabilities(logits(), {1, 0.9, 0});
  std::vector<double> share(4);
  const Stream64 stream(3, "test");
  for (uint64_t i = 0; i < 20000; ++i)
    share[static_cast<size_t>(draw_token(probabilities, stream.uniform(i)))] += 1 / 20000.0;
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(share[i], probabilities[i], 0.012);
  EXPECT_EQ(draw_token({0, 1, 0}, 0), 1);
  EXPECT_EQ(draw_token({0.5, 0.5 - 1e-9, 0}, 0.9999999999), 1);  // rounding never leaves the set
}

}  // namespace sampling_test
}  // namespace attune
