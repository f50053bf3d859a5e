// Packed copies of frozen weights: what is kept, what is turned for each product.
#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops/linear.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace weight_copies_test {

Tensor draw(uint64_t key, int64_t rows, int64_t cols) {
  const Stream64 stream(key);
  Tensor x = at::empty({rows, cols}, at::kFloat);
  for (int64_t i = 0; i < x.numel(); ++i)
    static_cast<float*>(x.data_ptr())[i] =
        static_cast<float>(stream.normal(static_cast<uint64_t>(i)));
  return x;
}

/// The largest difference between dy W through the copies and in double from the rounded operands.
double error(WeightCopies& copies, const Tensor& weight, int64_t rows) {
  const Tensor dy = draw(9, rows, weight.size(0)).to(at::kBFloat16);
  const Tensor dx = at::empty({rows, weight.size(1)}, at::kFloat);
  multiply_weight(dy, {weight, &copies}, false, dx, Tensor());
  const Tensor expected = at::matmul(dy.to(at::kDouble), weight.to(at::kBFloat16).to(at::kDouble));
  return (dx.to(at::kDouble) - expected).abs().max().item<double>();
}

TEST(WeightCopies, GiveTheProductOfTheWeightAsItIsNow) {
  for (const int64_t rows : {int64_t{3}, WeightCopies::kFewRows}) {
    const Tensor weight = draw(1, 96, 160);
    WeightCopies copies;
    EXPECT_LE(error(copies, weight, rows), 1e-4);
    weight.mul_(-2);
    mark_changed(weight);
    EXPECT_LE(error(copies, weight, rows), 2e-4);
    copies.drop();
    EXPECT_LE(error(copies, weight, rows), 2e-4);
  }
}

/// Can this machine turn one copy into the other? Where it cannot, both are always kept.
bool turns(WeightCopies& copies, const Tensor& weight) {
  return kernels::PackedMatrix::unfilled(weight.size(0), weight.size(1), kernels::DType::BF16)
      .fill_transposed(copies.forward(weight));
}

TEST(WeightCopies, KeepTheBackwardOneForFewRowsWhileThereIsRoom) {
  const Tensor weight = draw(1, 96, 160);
  const int64_t before = CountedBytes::all();
  int64_t size = 0;  // as oneDNN blocks it
  {
    WeightCopies copies;
    size = copies.forward(weight).bytes();
    EXPECT_LE(error(copies, weight, WeightCopies::kFewRows), 1e-4);
    if (turns(copies, weight)) {
      EXPECT_EQ(CountedBytes::all(), before);
    }
    EXPECT_LE(error(copies, weight, 3), 1e-4);
    EXPECT_EQ(CountedBytes::all(), before + size);
    EXPECT_LE(error(copies, weight, WeightCopies::kFewRows), 1e-4);
    EXPECT_EQ(CountedBytes::all(), before + size) << "what is kept serves products of many rows";
    copies.drop();
    EXPECT_EQ(CountedBytes::all(), before);
  }
  {
    WeightCopies copies;
    copies.model_is_small();
    EXPECT_LE(error(copies, weight, WeightCopies::kFewRows), 1e-4);
    EXPECT_EQ(CountedBytes::all(), before + size) << "whatever the rows";
  }
  const CountedBytes others(WeightCopies::kRoom - before - size + 1);
  WeightCopies copies;
  copies.model_is_small();
  EXPECT_LE(error(copies, weight, 3), 1e-4);
  if (turns(copies, weight)) {
    EXPECT_EQ(CountedBytes::all(), WeightCopies::kRoom - size + 1);
  }
}

}  // namespace weight_copies_test
}  // namespace attune
