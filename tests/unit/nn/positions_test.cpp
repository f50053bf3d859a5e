#include "nn/positions.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/torch.h"
#include "tensor/types.h"

namespace attune {
namespace positions_test {

using at::Tensor;

/// The bucket of a distance among [-reach, reach].
int64_t bucket(const Tensor& index, int64_t distance) {
  return index[(index.numel() - 1) / 2 + distance].item<int64_t>();
}

TEST(BucketIndex, HoldsThePublishedBidirectionalValues) {
  const Tensor index = bucket_index({32, 128, true});
  ASSERT_EQ(index.numel(), 257);
  // From this distance on, until the next one; key before query.
  const std::vector<std::pair<int64_t, int64_t>> begins{
      {0, 0}, {1, 1},  {2, 2},   {3, 3},   {4, 4},   {5, 5},   {6, 6},   {7, 7},
      {8, 8}, {12, 9}, {16, 10}, {23, 11}, {32, 12}, {46, 13}, {64, 14}, {91, 15}};
  for (size_t i = 0; i < begins.size(); ++i) {
    const int64_t end = i + 1 < begins.size() ? begins[i + 1].first : 129;
    for (int64_t d = begins[i].first; d < end; ++d) {
      EXPECT_EQ(bucket(index, -d), begins[i].second) << d;
      if (d > 0) {
        EXPECT_EQ(bucket(index, d), begins[i].second + 16) << d;
      }
    }
  }
}

TEST(BucketIndex, HoldsThePublishedCausalValues) {
  const Tensor index = bucket_index({32, 128, false});
  const std::vector<std::pair<int64_t, int64_t>> begins{
      {16, 16}, {19, 17}, {21, 18}, {24, 19}, {27, 20}, {31, 21}, {35, 22}, {40, 23},
      {46, 24}, {52, 25}, {59, 26}, {67, 27}, {77, 28}, {87, 29}, {99, 30}, {113, 31}};
  for (int64_t d = 0; d < 16; ++d) EXPECT_EQ(bucket(index, -d), d);
  for (size_t i = 0; i < begins.size(); ++i) {
    const int64_t end = i + 1 < begins.size() ? begins[i + 1].first : 129;
    for (int64_t d = begins[i].first; d < end; ++d)
      EXPECT_EQ(bucket(index, -d), begins[i].second) << d;
  }
  for (int64_t d = 1; d <= 128; ++d) EXPECT_EQ(bucket(index, d), 0) << "future " << d;
}

TEST(BucketIndex, EndsInTheLastBucketForOddSizes) {
  for (const BucketSpec& spec : {BucketSpec{33, 40, true}, {12, 14, false}, {8, 6, true}}) {
    const Tensor index = bucket_index(spec);
    const int64_t half = spec.bidirectional ? spec.buckets / 2 : spec.buckets;
    EXPECT_EQ(bucket(index, -(index.numel() - 1) / 2), half - 1);
    EXPECT_LT(index.max().item<int64_t>(), spec.buckets);
    EXPECT_GE(index.min().item<int64_t>(), 0);
  }
}

/// Frequencies of a specification in double, written out pair by pair.
std::vector<double> expected_frequencies(const RotarySpec& s, int64_t length) {
  std::vector<double> result;
  double base = s.base;
  const double d = static_cast<double>(s.dims);
  using Scaling = RotarySpec::Scaling;
  if (s.scaling == Scaling::Dynamic && length > s.max_positions)
    base *=
        std::pow(s.factor * double(length) / double(s.max_positions) - (s.factor - 1), d / (d - 2));
  const double context = static_cast<double>(s.original_positions);
  for (int64_t j = 0; j < s.dims / 2; ++j) {
    double f = std::pow(base, -2.0 * double(j) / d);
    const double wave = 2 * M_PI / f;
    if (s.scaling == Scaling::Linear) f /= s.factor;
    if (s.scaling == Scaling::LongRope)
      f /= (length > s.original_positions ? s.long_factors : s.short_factors)[size_t(j)];
    if (s.scaling == Scaling::Llama3) {
      const double low = context / s.low_frequency, high = context / s.high_frequency;
      const double smooth =
          (context / wave - s.low_frequency) / (s.high_frequency - s.low_frequency);
      if (wave > low)
        f /= s.factor;
      else if (wave >= high)
        f = (1 - smooth) * f / s.factor + smooth * f;
    }
    if (s.scaling == Scaling::Yarn) {
      const auto pair_of = [&](double turns) {
        return d * std::log(context / (turns * 2 * M_PI)) / (2 * std::log(s.base));
      };
      double low = pair_of(s.beta_fast), high = pair_of(s.beta_slow);
      if (s.truncate) low = std::floor(low), high = std::ceil(high);
      low = std::max(low, 0.0), high = std::min(high, d - 1);
      const double ramp = std::min(1.0, std::max(0.0, (double(j) - low) / (high - low)));
      f = f / s.factor * ramp + f * (1 - ramp);
    }
    result.push_back(f);
  }
  return result;
}

std::vector<RotarySpec> rotary_specs() {
  std::vector<RotarySpec> specs;
  using Scaling = RotarySpec::Scaling;
  for (const Scaling scaling : {Scaling::Default, Scaling::Linear, Scaling::Dynamic,
                                Scaling::Llama3, Scaling::Yarn, Scaling::LongRope}) {
    RotarySpec s;
    s.dims = 12;
    s.scaling = scaling;
    s.base = 500;
    s.factor = 3;
    s.max_positions = 64;
    s.original_positions = 32;
    s.beta_fast = 4;
    s.attention_factor = scaling == Scaling::Yarn ? 1.25 : 1;
    s.short_factors = {1, 1.1, 1.2, 1.3, 1.4, 1.5};
    s.long_factors = {2, 2.5, 3, 3.5, 4, 4.5};
    specs.push_back(s);
    s.truncate = false;
    if (scaling == Scaling::Yarn) specs.push_back(s);
  }
  return specs;
}

TEST(InverseFrequencies, FollowTheirDefinitionForEveryScaling) {
  for (const RotarySpec& spec : rotary_specs())
    for (const int64_t length : {5, 32, 33, 64, 65, 200}) {
      const Tensor found = inverse_frequencies(spec, length);
      const std::vector<double> expected = expected_frequencies(spec, length);
      for (size_t j = 0; j < expected.size(); ++j)
        EXPECT_NEAR(found[int64_t(j)].item<double>(), expected[j], 1e-6 * expected[j])
            << "scaling " << int(spec.scaling) << " length " << length << " pair " << j;
    }
}

TEST(RotaryTable, EachSequenceHasTheFrequenciesOfItsOwnLength) {
  for (const RotarySpec& spec : rotary_specs()) {
    const RowIndex rows = RowIndex::from_lengths({3, 0, 2});
    const std::vector<int32_t> positions{0, 1, 90, 4, 5};
    const RotaryTable table = rotary_table(spec, int32_tensor(positions), rows, at::kDouble);
    ASSERT_EQ(table.cosines.sizes(), (std::vector<int64_t>{5, 6}));
    for (int64_t r = 0; r < 5; ++r) {
      const std::vector<double> frequency = expected_frequencies(spec, r < 3 ? 91 : 6);
      for (int64_t j = 0; j < 6; ++j) {
        const double angle = positions[size_t(r)] * frequency[size_t(j)];
        EXPECT_NEAR(table.cosines[r][j].item<double>(), std::cos(angle) * spec.attention_factor,
                    2e-5);
        EXPECT_NEAR(table.sines[r][j].item<double>(), std::sin(angle) * spec.attention_factor,
                    2e-5);
      }
    }
  }
}

TEST(Consecutive, SeesAGapInsideASequenceOnly) {
  const RowIndex rows = RowIndex::from_lengths({2, 3});
  EXPECT_TRUE(consecutive(int32_tensor({7, 8, 0, 1, 2}), rows));
  EXPECT_FALSE(consecutive(int32_tensor({7, 8, 0, 2, 3}), rows));
  EXPECT_FALSE(consecutive(int32_tensor({8, 7, 0, 1, 2}), rows));
}

}  // namespace positions_test
}  // namespace attune
