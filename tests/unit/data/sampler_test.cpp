#include "data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/random.h"
#include "support/temp_folder.h"

namespace attune {
namespace sampler_test {

using Batches = std::vector<std::vector<int64_t>>;

int64_t length_of(int64_t example) {
  return 1 + static_cast<int64_t>(Stream64(5).below(static_cast<uint64_t>(example), 100));
}

Batches epoch(Sampler& sampler) {
  Batches batches;
  const int64_t number = sampler.position().epoch;
  while (sampler.position().epoch == number) batches.push_back(sampler.next());
  return batches;
}

std::vector<int64_t> flat(const Batches& batches) {
  std::vector<int64_t> all;
  for (const std::vector<int64_t>& batch : batches)
    all.insert(all.end(), batch.begin(), batch.end());
  return all;
}

void expect_each_once(std::vector<int64_t> examples, int64_t count) {
  std::sort(examples.begin(), examples.end());
  std::vector<int64_t> expected(static_cast<size_t>(count));
  std::iota(expected.begin(), expected.end(), int64_t{0});
  EXPECT_EQ(examples, expected);
}

TEST(Sampler, EveryExampleComesOnceAnEpoch) {
  for (const SamplerOptions& options :
       {SamplerOptions{8, 0, 1024}, SamplerOptions{7, 0, 10}, SamplerOptions{0, 512, 100},
        SamplerOptions{0, 64, 1}, SamplerOptions{5000, 0, 1024}}) {
    Sampler sampler(1003, 1, length_of, options);
    const Batches first = epoch(sampler), second = epoch(sampler);
    expect_each_once(flat(first), 1003);
    expect_each_once(flat(second), 1003);
    EXPECT_NE(flat(first), flat(second));
    EXPECT_EQ(sampler.consumed(), 2006);
  }
}

TEST(Sampler, OrderIsAFunctionOfTheSeed) {
  Sampler a(500, 1, length_of, {0, 256, 64}), b(500, 1, length_of, {0, 256, 64});
  Sampler c(500, 2, length_of, {0, 256, 64});
  const Batches first = epoch(a);
  EXPECT_EQ(first, epoch(b));
  EXPECT_NE(first, epoch(c));
}

TEST(Sampler, BatchSizeHoldsWhateverTheWindow) {
  Sampler sampler(100, 1, nullptr, {8, 0, 20});
  const Batches batches = epoch(sampler);
  ASSERT_EQ(batches.size(), 13u);
  for (size_t i = 0; i + 1 < batches.size(); ++i) EXPECT_EQ(batches[i].size(), 8u);
  EXPECT_EQ(batches.back().size(), 4u);
}

TEST(Sampler, NoBatchExceedsTheBudgetUnlessOneExampleDoes) {
  const int64_t budget = 80;  // some examples have up to 100
  Sampler sampler(2000, 3, length_of, {0, budget, 256});
  int64_t alone = 0;
  for (const std::vector<int64_t>& batch : epoch(sampler)) {
    int64_t rows = 0;
    for (const int64_t example : batch) rows += length_of(example);
    if (rows <= budget) continue;
    EXPECT_EQ(batch.size(), 1u);
    ++alone;
  }
  EXPECT_GT(alone, 0);
}

TEST(Sampler, PackingFillsBatches) {
  Sampler sampler(4096, 3, length_of, {0, 512, 1024});
  const Batches batches = epoch(sampler);
  int64_t rows = 0;
  for (int64_t i = 0; i < 4096; ++i) rows += length_of(i);
  const double full = static_cast<double>(rows) / 512;
  // One batch of each of the four windows may be half empty.
  EXPECT_LE(static_cast<double>(batches.size()), full + 4);
}

TEST(Sampler, BatchesOfAWindowAreNotSortedByLength) {
  Sampler sampler(1024, 3, length_of, {0, 64, 1024});
  std::vector<int64_t> longest;
  for (const std::vector<int64_t>& batch : epoch(sampler)) longest.push_back(length_of(batch[0]));
  EXPECT_FALSE(std::is_sorted(longest.rbegin(), longest.rend()));
}

TEST(Sampler, LengthsAreAskedForOneWindowAtATime) {
  int64_t asked = 0;
  Sampler sampler(1000, 1, [&](int64_t i) { return ++asked, length_of(i); }, {0, 256, 100});
  EXPECT_EQ(asked, 100);
  while (sampler.position().window == 0) sampler.next();
  EXPECT_EQ(asked, 200);
}

TEST(Sampler, SeekingContinuesExactly) {
  for (const SamplerOptions& options : {SamplerOptions{0, 256, 64}, SamplerOptions{8, 0, 64}}) {
    Sampler whole(300, 9, length_of, options);
    std::vector<Sampler::Position> positions;
    std::vector<double> consumed;
    Batches batches;
    while (whole.position().epoch < 3) {
      positions.push_back(whole.position());
      consumed.push_back(whole.consumed());
      batches.push_back(whole.next());
    }
    for (size_t i = 0; i < positions.size(); ++i) {
      Sampler resumed(300, 9, length_of, options);
      resumed.seek(positions[i]);
      EXPECT_EQ(resumed.position(), positions[i]);
      EXPECT_EQ(resumed.consumed(), consumed[i]);
      for (size_t k = i; k < std::min(i + 5, batches.size()); ++k)
        EXPECT_EQ(resumed.next(), batches[k]);
    }
  }
}

TEST(Sampler, ConsumedCountsExamples) {
  Sampler sampler(300, 9, length_of, {0, 256, 64});
  double given = 0;
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(sampler.consumed(), given);
    given += static_cast<double>(sampler.next().size());
  }
}

/// Three sources of 100, 30 and 10 examples with weights 1, 1 and 2.
SamplerOptions mixture() {
  SamplerOptions options{0, 256, 64, {}};
  int64_t example = 0;
  for (const std::pair<int64_t, double> part : {std::pair{100, 1.0}, {30, 1.0}, {10, 2.0}}) {
    options.mixture.push_back({{}, part.second});
    for (int64_t i = 0; i < part.first; ++i) options.mixture.back().examples.push_back(example++);
  }
  return options;
}

TEST(SamplerMixture, AnEpochDrawsFromEachSourceInProportion) {
  Sampler sampler(140, 4, length_of, mixture());
  for (int number = 0; number < 5; ++number) {
    std::vector<int64_t> counts(3, 0);
    for (const int64_t example : flat(epoch(sampler)))
      ++counts[example < 100 ? 0 : example < 130 ? 1 : 2];
    EXPECT_EQ(counts, (std::vector<int64_t>{35, 35, 70}));
    EXPECT_EQ(sampler.consumed(), 140 * (number + 1));
  }
}

TEST(SamplerMixture, ASourceRepeatsOnlyWhenItHasGivenEverything) {
  Sampler sampler(140, 4, nullptr, [] {
    SamplerOptions options = mixture();
    options.batch_tokens = 0;
    options.batch_size = 7;
    return options;
  }());
  std::vector<int64_t> times(140, 0);
  for (int number = 0; number < 20; ++number) {
    for (const int64_t example : flat(epoch(sampler))) ++times[static_cast<size_t>(example)];
    for (const std::pair<int64_t, int64_t> range : {std::pair{0, 100}, {100, 130}, {130, 140}}) {
      const auto [least, most] =
          std::minmax_element(times.begin() + range.first, times.begin() + range.second);
      EXPECT_LE(*most - *least, 1) << "epoch " << number << ", from " << range.first;
    }
  }
  EXPECT_EQ(times[0], 7);      // 20 * 35 draws of 100 examples
  EXPECT_EQ(times[135], 140);  // 20 * 70 draws of 10
}

TEST(SamplerMixture, DrawsAreShuffledAndAFunctionOfTheSeed) {
  Sampler a(140, 4, length_of, mixture()), b(140, 4, length_of, mixture()),
      c(140, 5, length_of, mixture());
  const std::vector<int64_t> first = flat(epoch(a));
  EXPECT_EQ(first, flat(epoch(b)));
  EXPECT_NE(first, flat(epoch(c)));
  // Runs of one source would be 35 or 70 long.
  const std::vector<int64_t> half(first.begin(), first.begin() + 70);
  const int64_t of_the_last =
      std::count_if(half.begin(), half.end(), [](int64_t example) { return example >= 130; });
  EXPECT_GT(of_the_last, 20);
  EXPECT_LT(of_the_last, 50);
}

TEST(SamplerMixture, SeekingContinuesExactlyAndKnowsWhatWasGiven) {
  Sampler whole(140, 9, length_of, mixture());
  std::vector<Sampler::Position> positions;
  Batches batches;
  while (whole.position().epoch < 3) {
    positions.push_back(whole.position());
    batches.push_back(whole.next());
  }
  std::vector<int64_t> given;
  for (size_t i = 0; i < positions.size(); ++i) {
    Sampler resumed(140, 9, length_of, mixture());
    resumed.seek(positions[i]);
    std::vector<int64_t> visited;
    resumed.visit_given([&](int64_t example) { visited.push_back(example); });
    std::sort(visited.begin(), visited.end());
    EXPECT_EQ(visited, given) << i;
    EXPECT_EQ(resumed.next(), batches[i]);
    given.insert(given.end(), batches[i].begin(), batches[i].end());
    std::sort(given.begin(), given.end());
  }
}

TEST(Sampler, KnowsWhatWasGiven) {
  Sampler sampler(300, 9, length_of, {0, 256, 64});
  std::vector<bool> expected(300, false);
  while (sampler.position().epoch < 2) {
    std::vector<bool> visited(300, false);
    sampler.visit_given([&](int64_t example) { visited[static_cast<size_t>(example)] = true; });
    EXPECT_EQ(visited, expected);
    for (const int64_t example : sampler.next()) expected[static_cast<size_t>(example)] = true;
  }
}

TEST(SamplerMixture, SourcesThatCannotBeDrawnFromAreNamed) {
  const auto bad = [](SamplerOptions options) {
    return error_text(ErrorCode::BadInput, [&] { Sampler(140, 1, length_of, options); });
  };
  SamplerOptions options = mixture();
  options.mixture[1].weight = 0.001;
  EXPECT_EQ(bad(options),
            "making batches: the share of source 2 in an epoch of 140 examples is less than one; "
            "raise its weight (0.001) or leave it out");
  options.mixture[1].weight = -1;
  EXPECT_EQ(bad(options),
            "making batches: the weight of source 2 is -1, expected a number above 0");
  options.mixture[1] = {{}, 1};
  EXPECT_EQ(bad(options), "making batches: source 2 has no examples; leave it out of the mixture");
  options.mixture[1].name = "data.train[1] (few.jsonl)";
  EXPECT_EQ(bad(options),
            "making batches: data.train[1] (few.jsonl) has no examples; leave it out of the "
            "mixture");
}

TEST(Sampler, BadSettingsAndPositionsAreNamed) {
  const TempFolder folder;
  const auto bad = [&](int64_t examples, SamplerOptions options, Sampler::Position position) {
    return error_text(folder, ErrorCode::BadInput,
                      [&] { Sampler(examples, 1, length_of, options).seek(position); });
  };
  EXPECT_EQ(bad(0, {8, 0, 64}, {}), "making batches: there are no examples");
  EXPECT_EQ(
      bad(9, {8, 8, 64}, {}),
      "making batches: batch_size is 8, batch_tokens 8, window 64; expected one of the first two, "
      "and the window, to be positive");
  EXPECT_EQ(bad(9, {0, 0, 64}, {}).find("making batches: batch_size is 0, batch_tokens 0"), 0u);
  EXPECT_EQ(bad(9, {8, 0, 0}, {}).find("making batches: batch_size is 8, batch_tokens 0, window 0"),
            0u);
  EXPECT_EQ(bad(100, {8, 0, 64}, {0, 2, 0}),
            "resuming: epoch 0, window 2, batch 0 does not exist in 100 examples in 2 windows; the "
            "data or "
            "the batch settings have changed since the checkpoint");
  EXPECT_EQ(bad(100, {8, 0, 64}, {1, 1, 5}).find("resuming: epoch 1, window 1, batch 5 does not"),
            0u);
}

TEST(Sampler, FailedSeekLeavesThePosition) {
  Sampler sampler(300, 9, length_of, {0, 256, 64}), same(300, 9, length_of, {0, 256, 64});
  EXPECT_THROW(sampler.seek({2, 0, 1000}), Error);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sampler.next(), same.next());
}

}  // namespace sampler_test
}  // namespace attune
