// Perplexities of tokens, words and bytes.
#include "metrics/perplexity.h"

#include <gtest/gtest.h>

#include <limits>

namespace attune {
namespace perplexity_test {

TEST(PerplexityReport, IsTheExponentialOfTheMeanLoss) {
  // A model that gives every one of 6 tokens probability 1/8, over 3 words and 12 bytes:
  // 8^(6/6), 8^(6/3), 8^(6/12); 18 bits over 12 bytes.
  const PerplexityReport report = perplexity_report({6 * 2.0794415416798357, 6, 3, 12});
  EXPECT_NEAR(report.loss, 2.0794415416798357, 1e-15);
  EXPECT_NEAR(report.perplexity, 8, 1e-12);
  EXPECT_NEAR(report.word_perplexity, 64, 1e-10);
  EXPECT_NEAR(report.byte_perplexity, 2.8284271247461903, 1e-12);
  EXPECT_NEAR(report.bits_per_byte, 1.5, 1e-12);
}

TEST(PerplexityReport, StaysAFiniteNumber) {
  EXPECT_EQ(perplexity_report({1e6, 1, 1, 1}).perplexity, std::numeric_limits<double>::max());
  EXPECT_EQ(perplexity_report({}).word_perplexity, 1);
}

}  // namespace perplexity_test
}  // namespace attune
