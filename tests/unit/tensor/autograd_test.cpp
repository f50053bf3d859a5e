#include "tensor/autograd.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace autograd_test {

Tensor random_matrix(uint64_t key, int64_t rows, int64_t cols, at::ScalarType type = at::kDouble) {
  const Stream64 stream(key);
  Tensor x = at::empty({rows, cols}, at::kDouble);
  for (int64_t i = 0; i < x.numel(); ++i)
    static_cast<double*>(x.data_ptr())[i] = stream.normal(static_cast<uint64_t>(i));
  return x.to(type);
}

double at2(const Tensor& x, int64_t i, int64_t j, bool transposed) {
  return (transposed ? x[j][i] : x[i][j]).item<double>();
}

/// sum_k a[i][k] b[k][j], elementwise in double, nothing shared with the kernels.
Tensor naive(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  const int64_t m = a.size(ta ? 1 : 0), k = a.size(ta ? 0 : 1), n = b.size(tb ? 0 : 1);
  Tensor c = at::zeros({m, n}, at::kDouble);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t q = 0; q < k; ++q) sum += at2(a, i, q, ta) * at2(b, q, j, tb);
      static_cast<double*>(c.data_ptr())[i * n + j] = sum;
    }
  return c;
}

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST(Matmul, ProductAndGradientsEqualTheNaiveOnes) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const double tolerance = type == at::kDouble ? 1e-13 : 1e-5;
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        const Tensor a = as_leaf(ta ? random_matrix(1, 5, 3, type) : random_matrix(1, 3, 5, type));
        const Tensor b = as_leaf(tb ? random_matrix(2, 4, 5, type) : random_matrix(2, 5, 4, type));
        const Tensor c = attune::matmul(a, b, ta, tb);
        EXPECT_LE(worst(c, naive(a.detach(), b.detach(), ta, tb)), tolerance);
        const Tensor g = random_matrix(3, 3, 4, type);
        backward((c * g).sum());
        // d/dA = G B^T and d/dB = A^T G, for the matrices as they are used.
        const Tensor da = naive(g, b.detach(), false, !tb), db = naive(a.detach(), g, !ta, false);
        EXPECT_LE(worst(a.grad(), ta ? da.t() : da), tolerance) << ta << tb;
        EXPECT_LE(worst(b.grad(), tb ? db.t() : db), tolerance) << ta << tb;
      }
    }
  }
}

TEST(Matmul, OnlyTheSideThatAsksGetsAGradient) {
  const Tensor a = as_leaf(random_matrix(1, 3, 5)), b = random_matrix(2, 5, 4);
  backward(attune::matmul(a, b).sum());
  EXPECT_TRUE(a.grad().defined());
  EXPECT_FALSE(b.grad().defined());
}

TEST(Matmul, InnerSizesThatDifferAreNamed) {
  try {
    attune::matmul(random_matrix(1, 3, 5), random_matrix(2, 4, 5));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_STREQ(error.what(), "multiplying matrices [3, 5] and [4, 5]: the inner sizes differ");
  }
}

TEST(Record, NothingIsRecordedWhenNoInputAsks) {
  const Tensor x = random_matrix(1, 2, 2);
  int calls = 0;
  const Tensor y = record(x + 1.0, {x, Tensor()}, "test", [&](const Tensors& g) -> Tensors {
    ++calls;
    return g;
  });
  EXPECT_FALSE(y.requires_grad());
  const Tensor leaf = as_leaf(x);
  {
    at::NoGradGuard no_grad;
    EXPECT_FALSE(wants_gradient(leaf));
    EXPECT_FALSE(record(leaf.detach() + 1.0, {leaf}, "test", [](const Tensors& g) {
                   return g;
                 }).requires_grad());
  }
  EXPECT_EQ(calls, 0);
}

TEST(Record, OneNodeServesSeveralOutputsAndUndefinedInputs) {
  const Tensor x = as_leaf(random_matrix(1, 2, 3));
  Tensors outputs{x.detach() * 2.0, x.detach() * 3.0};
  record(outputs, {Tensor(), x}, "twice", [](const Tensors& g) -> Tensors {
    Tensor sum;
    if (g[0].defined()) sum = g[0] * 2.0;
    if (g[1].defined()) sum = sum.defined() ? sum + g[1] * 3.0 : g[1] * 3.0;
    return {Tensor(), sum};
  });
  backward(outputs[0].sum() + outputs[1].sum());
  EXPECT_LE(worst(x.grad(), at::full({2, 3}, 5.0, at::kDouble)), 0);
}

TEST(Record, AnOutputThatIsNotUsedHasNoGradient) {
  const Tensor x = as_leaf(random_matrix(1, 2, 3));
  Tensors outputs{x.detach() * 2.0, x.detach() * 3.0};
  bool second = true;
  record(outputs, {x}, "twice", [&](const Tensors& g) -> Tensors {
    second = g[1].defined();
    return {g[0] * 2.0};
  });
  backward(outputs[0].sum());
  EXPECT_FALSE(second);
  EXPECT_LE(worst(x.grad(), at::full({2, 3}, 2.0, at::kDouble)), 0);
}

TEST(Record, BackwardRunsWithoutRecordingAndOnlyOnce) {
  const Tensor x = as_leaf(random_matrix(1, 2, 2));
  bool recording = true;
  const Tensor y = record(x.detach() + 1.0, {x}, "once", [&](const Tensors& g) -> Tensors {
    recording = at::GradMode::is_enabled();
    return g;
  });
  const Tensor loss = y.sum();
  backward(loss);
  EXPECT_FALSE(recording);
  EXPECT_ANY_THROW(backward(loss));
}

TEST(Record, GradientsAddUpOverBackwardPasses) {
  const Tensor a = as_leaf(random_matrix(1, 3, 5)), b = random_matrix(2, 5, 4);
  backward(attune::matmul(a, b).sum());
  const Tensor once = a.grad().clone();
  backward(attune::matmul(a, b).sum());
  EXPECT_LE(worst(a.grad(), once * 2.0), 1e-14);
}

TEST(Versions, AChangeByAKernelIsSeen) {
  const Tensor x = as_leaf(random_matrix(1, 2, 2));
  const int64_t before = version_of(x);
  mark_changed(x);
  EXPECT_GT(version_of(x), before);
}

TEST(AsLeaf, SharesMemoryAndAsksForGradients) {
  const Tensor x = random_matrix(1, 2, 2), leaf = as_leaf(x);
  EXPECT_EQ(leaf.data_ptr(), x.data_ptr());
  EXPECT_TRUE(leaf.requires_grad());
  EXPECT_FALSE(x.requires_grad());
}

TEST(Recomputed, RunsItsBodyAgainForTheSameGradients) {
  const Tensor x = as_leaf(random_matrix(1, 3, 4)), w = as_leaf(random_matrix(2, 4, 5)),
               outside = as_leaf(random_matrix(3, 3, 5));
  int runs = 0;
  const auto body = [&, outside](const Tensors& in) {
    ++runs;
    EXPECT_FALSE(in[2].defined());
    return (in[0].matmul(in[1]) + outside * outside).tanh();
  };
  body({x, w, Tensor()}).sum().backward();
  std::vector<Tensor> expected;
  for (const Tensor& leaf : {x, w, outside}) {
    expected.push_back(leaf.grad().clone());
    leaf.mutable_grad() = Tensor();
  }
  runs = 0;
  const Tensor y = recomputed({x, w, Tensor()}, body);
  EXPECT_EQ(runs, 1);
  backward(y.sum(), true);
  EXPECT_EQ(runs, 2);
  size_t i = 0;
  for (const Tensor& leaf : {x, w, outside}) EXPECT_EQ(worst(leaf.grad(), expected[i++]), 0);
}

TEST(Recomputed, WithoutGradientsKeepsNothing) {
  const Tensor x = random_matrix(1, 2, 2), leaf = as_leaf(x);
  const auto twice = [](const Tensors& in) { return in[0] * 2; };
  EXPECT_FALSE(recomputed({x}, twice).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(recomputed({leaf}, twice).requires_grad());
}

TEST(PlaceOf, WritesOverAGradientOnlyWhereNobodyElseHoldsIt) {
  Tensor gradient = random_matrix(1, 3, 4);
  const void* at = gradient.data_ptr();
  EXPECT_EQ(place_of(gradient, at::kDouble).data_ptr(), at);
  EXPECT_NE(place_of(gradient, at::kFloat).data_ptr(), at);
  EXPECT_EQ(place_of(gradient, at::kFloat).scalar_type(), at::kFloat);
  {
    const Tensor other = gradient;
    EXPECT_NE(place_of(gradient, at::kDouble).data_ptr(), at) << "the tensor is shared";
  }
  {
    const Tensor view = gradient[0];
    EXPECT_NE(place_of(gradient, at::kDouble).data_ptr(), at) << "its memory is shared";
  }
  EXPECT_EQ(place_of(gradient, at::kDouble).data_ptr(), at);
  const Tensor spread = at::ones({1, 4}, at::kDouble).expand({3, 4});
  EXPECT_EQ(place_of(spread, at::kDouble).numel(), 12) << "not contiguous";
  EXPECT_TRUE(place_of(spread, at::kDouble).is_contiguous());
}

}  // namespace autograd_test
}  // namespace attune
