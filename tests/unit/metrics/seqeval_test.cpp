#include "metrics/seqeval.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace attune {
namespace seqeval_test {

using Tags = std::vector<std::vector<std::string>>;

const Tags kGoldTags = {{"B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-LOC"},
                        {"I-ORG", "I-ORG", "O", "I-PER", "B-PER"},
                        {"B-LOC", "O", "B-ORG", "I-LOC", "O"},
                        {"O", "O"}};
const Tags kPredictedTags = {{"B-PER", "I-PER", "O", "I-LOC", "I-LOC", "B-LOC"},
                             {"I-ORG", "I-ORG", "O", "B-PER", "I-PER"},
                             {"B-LOC", "I-PER", "B-ORG", "I-LOC", "O"},
                             {"B-MISC", "O"}};

void expect_score(const EntityScore& score, double p, double r, double f1, int64_t support) {
  EXPECT_NEAR(score.precision, p, 1e-12);
  EXPECT_NEAR(score.recall, r, 1e-12);
  EXPECT_NEAR(score.f1, f1, 1e-12);
  EXPECT_EQ(score.support, support);
}

TEST(SequenceReport, ReadmeExampleOfSeqevalHolds) {
  const SequenceReport report = sequence_report(
      {{"O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"}, {"B-PER", "I-PER", "O"}},
      {{"O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"}, {"B-PER", "I-PER", "O"}});
  EXPECT_NEAR(report.overall.f1, 0.50, 1e-12);
  EXPECT_NEAR(report.accuracy, 0.80, 1e-12);
}

TEST(SequenceReport, ConllevalModeEqualsSeqeval) {
  // seqeval 1.2.2, default mode.
  const SequenceReport report = sequence_report(kGoldTags, kPredictedTags);
  expect_score(report.overall, 0.7, 0.7777777777777778, 0.7368421052631577, 9);
  expect_score(report.types.at("LOC"), 1, 1, 1, 4);
  expect_score(report.types.at("MISC"), 0, 0, 0, 0);
  expect_score(report.types.at("ORG"), 1, 1, 1, 2);
  expect_score(report.types.at("PER"), 1.0 / 3, 1.0 / 3, 1.0 / 3, 3);
  EXPECT_NEAR(report.macro_f1, 0.5833333333333334, 1e-12);
  EXPECT_NEAR(report.weighted_f1, 0.7777777777777778, 1e-12);
  EXPECT_NEAR(report.accuracy, 0.7222222222222222, 1e-12);
}

TEST(SequenceReport, StrictModeEqualsSeqeval) {
  // seqeval 1.2.2, mode="strict", scheme=IOB2.
  const SequenceReport report = sequence_report(kGoldTags, kPredictedTags, EntityMode::Strict);
  expect_score(report.overall, 2.0 / 3, 2.0 / 3, 2.0 / 3, 6);
  expect_score(report.types.at("LOC"), 1, 2.0 / 3, 0.8, 3);
  expect_score(report.types.at("MISC"), 0, 0, 0, 0);
  expect_score(report.types.at("ORG"), 1, 1, 1, 1);
  expect_score(report.types.at("PER"), 0.5, 0.5, 0.5, 2);
  EXPECT_NEAR(report.macro_f1, 0.575, 1e-12);
  EXPECT_NEAR(report.weighted_f1, 0.7333333333333334, 1e-12);
}

TEST(Entities, PrefixesOfIobesCloseEntities) {
  // seqeval 1.2.2, get_entities.
  EXPECT_EQ(entities({"B-PER", "E-PER", "S-LOC", "S-LOC", "I-X-Y", "E-X-Y"}, EntityMode::Conlleval),
            (std::vector<Entity>{{"PER", 0, 1}, {"LOC", 2, 2}, {"LOC", 3, 3}, {"X-Y", 4, 5}}));
}

template <class Call>
void expect_tag_error(Call call, const std::string& text) {
  try {
    call();
    FAIL() << "no error, expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).substr(0, text.size()), text);
  }
}

TEST(SequenceReport, BadTagsAreNamed) {
  expect_tag_error([] { sequence_report({{"O"}}, {}); },
                   "scoring tags: 1 gold and 0 predicted sentences");
  expect_tag_error(
      [] {
        sequence_report({{"O"}}, {{"O", "O"}});
      },
      "scoring tags: sentence 0 has 1 gold and 2 predicted tags");
  expect_tag_error([] { sequence_report({{""}}, {{"O"}}); }, "scoring tags: an empty tag");
  expect_tag_error([] { sequence_report({}, {}); }, "scoring tags: there are no tokens to score");
  expect_tag_error([] { entities({"S-PER"}, EntityMode::Strict); },
                   "scoring tags in strict IOB2 mode: tag \"S-PER\" has the prefix S");
}

}  // namespace seqeval_test
}  // namespace attune
