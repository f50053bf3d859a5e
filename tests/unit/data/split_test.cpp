#include "data/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "support/temp_folder.h"

namespace attune {
namespace split_test {

std::vector<std::string> strata_of(const std::map<std::string, int64_t>& counts) {
  std::vector<std::string> strata;
  for (const auto& [name, count] : counts)
    for (int64_t i = 0; i < count; ++i) strata.push_back(name);
  // Interleave, so that strata are not runs.
  std::vector<std::string> mixed;
  for (size_t step = 0; step < 7; ++step)
    for (size_t i = step; i < strata.size(); i += 7) mixed.push_back(strata[i]);
  return mixed;
}

std::map<std::string, int64_t> count(const std::vector<std::string>& strata,
                                     const std::vector<int64_t>& rows) {
  std::map<std::string, int64_t> counts;
  for (const int64_t row : rows) ++counts[strata[static_cast<size_t>(row)]];
  return counts;
}

TEST(SplitRows, EveryRowIsInOnePartAndStrataAreInProportion) {
  const std::vector<std::string> strata = strata_of({{"a", 700}, {"b", 200}, {"c", 100}});
  const Split parts = split(strata, 0.1, 7);
  EXPECT_EQ(count(strata, parts.eval),
            (std::map<std::string, int64_t>{{"a", 70}, {"b", 20}, {"c", 10}}));
  std::set<int64_t> rows(parts.train.begin(), parts.train.end());
  rows.insert(parts.eval.begin(), parts.eval.end());
  EXPECT_EQ(rows.size(), 1000u);
  EXPECT_EQ(parts.train.size() + parts.eval.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(parts.train.begin(), parts.train.end()));
  EXPECT_TRUE(std::is_sorted(parts.eval.begin(), parts.eval.end()));
}

TEST(SplitRows, IsAFunctionOfTheSeed) {
  const std::vector<std::string> strata = strata_of({{"a", 50}, {"b", 50}});
  EXPECT_EQ(split(strata, 0.2, 1).eval, split(strata, 0.2, 1).eval);
  EXPECT_NE(split(strata, 0.2, 1).eval, split(strata, 0.2, 2).eval);
}

TEST(SplitRows, CountHoldsExactlyAndEachStratumKeepsATrainingRow) {
  const std::vector<std::string> strata = strata_of({{"a", 5}, {"b", 3}, {"c", 2}, {"d", 1}});
  for (int64_t held = 1; held <= 7; ++held) {
    const Split parts = split(strata, static_cast<double>(held), 3);
    EXPECT_EQ(static_cast<int64_t>(parts.eval.size()), held);
    EXPECT_EQ(count(strata, parts.train).size(), 4u);
  }
}

TEST(SplitRows, OneStratumIsAPlainSplit) {
  EXPECT_EQ(split(std::vector<std::string>(30, ""), 0.1, 1).eval.size(), 3u);
}

TEST(SplitRows, ImpossibleSharesAreNamed) {
  const TempFolder folder;
  const std::vector<std::string> strata = strata_of({{"a", 3}, {"b", 1}});
  const auto bad = [&](const std::vector<std::string>& rows, double share) {
    return error_text(folder, ErrorCode::BadInput, [&] { split(rows, share, 1); });
  };
  const std::string range = "expected a share between 0 and 1 or a whole number of rows";
  EXPECT_EQ(bad(strata, 0), "splitting data: the share to hold out is 0, " + range);
  EXPECT_EQ(bad(strata, -0.5), "splitting data: the share to hold out is -0.5, " + range);
  EXPECT_EQ(bad(strata, 1.5), "splitting data: the share to hold out is 1.5, " + range);
  EXPECT_EQ(
      bad(strata, 3),
      "splitting data: 3 rows are to be held out, but only 2 of 4 can be when each label keeps one "
      "row for training; hold out fewer");
  EXPECT_EQ(bad({"a", "b"}, 0.5),
            "splitting data: none of 2 rows can be held out, for each label occurs only once; name "
            "a file "
            "for evaluation");
  EXPECT_EQ(bad({"a"}, 0.5), "splitting data: 1 rows, expected at least 2");
}

}  // namespace split_test
}  // namespace attune
