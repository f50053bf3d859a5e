#include "tensor/choose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "support/temp_folder.h"
#include "tensor/torch.h"

namespace attune {
namespace choose_test {

using at::Tensor;

Tensor draw(uint64_t key, const std::vector<int64_t>& shape, at::ScalarType type) {
  Tensor values = at::empty(shape, at::kDouble);
  double* out = static_cast<double*>(values.data_ptr());
  for (int64_t i = 0; i < values.numel(); ++i)
    out[i] = Stream64(key).normal(static_cast<uint64_t>(i));
  return values.to(type);
}

int64_t ones(const std::vector<Tensor>& masks) {
  int64_t count = 0;
  for (const Tensor& mask : masks) count += mask.sum().item<int64_t>();
  return count;
}

TEST(LargestElements, AreThoseOfAFullSort) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const std::vector<Tensor> scores{draw(1, {5, 7}, type), draw(2, {11}, type),
                                     draw(3, {4, 3}, type).t()};
    std::vector<double> sorted;
    for (const Tensor& score : scores)
      for (int64_t i = 0; i < score.numel(); ++i)
        sorted.push_back(score.reshape({-1})[i].item<double>());
    std::sort(sorted.rbegin(), sorted.rend());
    for (int64_t count = 0; count <= static_cast<int64_t>(sorted.size()); ++count) {
      const std::vector<Tensor> masks = largest_elements(scores, count);
      EXPECT_EQ(ones(masks), count);
      for (size_t t = 0; t < scores.size() && count > 0; ++t)
        EXPECT_TRUE(
            at::equal(masks[t].ne(0), scores[t].ge(sorted[static_cast<size_t>(count - 1)])));
    }
  }
}

TEST(LargestElements, TiesAreTakenInOrderSoThatTheCountIsExact) {
  const std::vector<Tensor> masks =
      largest_elements({at::zeros({3}), at::tensor({0.0F, 1.0F, -0.5F, 0.0F})}, 4);
  EXPECT_TRUE(at::equal(masks[0], at::ones({3}, at::kByte)));
  EXPECT_TRUE(at::equal(masks[1], at::tensor({0, 1, 0, 0}, at::kLong).to(at::kByte)));
}

TEST(LargestElements, AreChosenAmongAllTensorsTogether) {
  const std::vector<Tensor> masks = largest_elements({at::full({4}, 0.1), at::full({4}, 9.0)}, 4);
  EXPECT_EQ(masks[0].sum().item<int64_t>(), 0);
  EXPECT_EQ(masks[1].sum().item<int64_t>(), 4);
}

TEST(LargestElements, AScoreThatIsNoNumberOrTooManyAreOurBugs) {
  EXPECT_EQ(
      error_text(ErrorCode::Internal, [] { largest_elements({at::full({2}, std::nan(""))}, 1); }),
      "choosing the largest elements: a score is not a number");
  EXPECT_EQ(error_text(ErrorCode::Internal, [] { largest_elements({at::zeros({2})}, 3); }),
            "choosing 3 of 2 elements");
}

TEST(RandomElements, AreExactlyAsManyAndEveryElementIsAsLikely) {
  const std::vector<Tensor> like{at::zeros({2, 3}), at::zeros({4})};
  Tensor seen = at::zeros({10}, at::kLong);
  const int64_t draws = 4000;
  for (int64_t i = 0; i < draws; ++i) {
    const std::vector<Tensor> masks = random_elements(like, 3, static_cast<uint64_t>(i));
    ASSERT_EQ(ones(masks), 3);
    seen += at::cat({masks[0].reshape({-1}), masks[1]}).to(at::kLong);
  }
  // Binomial with p = 0.3: five standard deviations.
  const double spread = 5 * std::sqrt(static_cast<double>(draws) * 0.3 * 0.7);
  for (int64_t i = 0; i < 10; ++i)
    EXPECT_NEAR(seen[i].item<double>(), 0.3 * static_cast<double>(draws), spread) << i;
}

TEST(RandomElements, AreAFunctionOfTheKey) {
  const std::vector<Tensor> like{at::zeros({50})};
  EXPECT_TRUE(at::equal(random_elements(like, 20, 1)[0], random_elements(like, 20, 1)[0]));
  EXPECT_FALSE(at::equal(random_elements(like, 20, 1)[0], random_elements(like, 20, 2)[0]));
}

TEST(KeepAtRandom, KeepsTheShareAndItsMeanIsTheTensor) {
  const Tensor x = draw(1, {3, 5}, at::kDouble);
  const double keep = 0.3;
  Tensor sum = at::zeros_like(x), kept = at::zeros_like(x);
  const int64_t draws = 20000;
  for (int64_t i = 0; i < draws; ++i) {
    const Tensor y = keep_at_random(x, keep, static_cast<uint64_t>(i));
    sum += y;
    kept += y.ne(0).to(at::kDouble);
    if (i < 100) {
      EXPECT_LE((y - at::where(y.ne(0), x / keep, at::zeros_like(x))).abs().max().item<double>(),
                1e-6);
    }
  }
  const double n = static_cast<double>(draws);
  // Five standard deviations of the mean of x * Bernoulli(p) / p.
  const Tensor bound = x.abs() * (5 * std::sqrt((1 - keep) / keep / n)) + 1e-9;
  EXPECT_TRUE((sum / n - x).abs().le(bound).all().item<bool>());
  EXPECT_LE((kept / n - keep).abs().max().item<double>(), 5 * std::sqrt(keep * (1 - keep) / n));
}

TEST(KeepAtRandom, KeepingAllIsExact) {
  const Tensor x = draw(1, {7}, at::kFloat);
  EXPECT_TRUE(at::equal(keep_at_random(x, 1, 5), x));
}

}  // namespace choose_test
}  // namespace attune
