#include "methods/batched.h"

#include "method_bench.h"

namespace attune {
namespace batched_test {

TEST(BatchedMatmul, EveryProductIsTheNaiveOne) {
  const Tensor a = MethodBench::draw("a", {3, 4, 5}), b = MethodBench::draw("b", {3, 5, 2});
  const Tensor c = batched_matmul(a, b);
  const Tensor t = batched_matmul(a, b.transpose(1, 2), true);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_LT(difference(c.select(0, i), naive_product(a.select(0, i), b.select(0, i))), 1e-14);
    EXPECT_LT(difference(t.select(0, i), c.select(0, i)), 1e-14);
  }
}

TEST(BatchedMatmul, OneMatrixServesAll) {
  const Tensor a = MethodBench::draw("a", {3, 4, 5}), b = MethodBench::draw("b", {1, 5, 2});
  const Tensor c = batched_matmul(a, b);
  for (int64_t i = 0; i < 3; ++i)
    EXPECT_LT(difference(c.select(0, i), naive_product(a.select(0, i), b.select(0, 0))), 1e-14);
}

TEST(BatchedMatmul, GradientsAreThoseOfFiniteDifferences) {
  const Tensor probe = MethodBench::draw("probe", {3, 4, 2});
  for (const bool transposed : {false, true}) {
    for (const int64_t count : {1, 3}) {
      const Tensor a = as_leaf(MethodBench::draw("a", {3, 4, 5}));
      const Tensor b =
          as_leaf(MethodBench::draw("b", {count, transposed ? 2 : 5, transposed ? 5 : 2}));
      const std::function<Tensor()> loss = [&] {
        return (batched_matmul(a, b, transposed) * probe).sum();
      };
      expect_gradient(a, loss);
      expect_gradient(b, loss);
    }
  }
}

std::string refusal(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  try {
    batched_matmul(at::zeros(a), at::zeros(b));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(BatchedMatmul, OtherCountsOrInnerSizesAreRefused) {
  EXPECT_EQ(refusal({3, 4, 5}, {2, 5, 2}),
            "multiplying matrices [3, 4, 5] and [2, 5, 2] one by one: the counts or inner sizes "
            "differ");
  EXPECT_EQ(refusal({3, 4, 5}, {3, 4, 2}),
            "multiplying matrices [3, 4, 5] and [3, 4, 2] one by one: the counts or inner sizes "
            "differ");
}

}  // namespace batched_test
}  // namespace attune
