// HRA: chains of Householder reflections, their start, Gram-Schmidt, the penalty.
#include <cmath>

#include "method_bench.h"

namespace attune {
namespace hra_test {

const std::string kUp = "enc.0.ffn.up";

std::unique_ptr<MethodBench> hra(Json options = Json::object()) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  Json all{{"rank", 3}, {"sites", Json::array({kUp, "enc.1.self.q"})}};
  all.update(options);
  bench->attach("hra", all);
  return bench;
}

/// I - 2 u u^T / (u^T u) for column i.
Tensor reflection(const Tensor& vectors, int64_t i) {
  const int64_t n = vectors.size(0);
  double square = 0;
  for (int64_t a = 0; a < n; ++a) square += at2(vectors, a, i) * at2(vectors, a, i);
  Tensor h = at::eye(n, at::kDouble);
  for (int64_t a = 0; a < n; ++a)
    for (int64_t b = 0; b < n; ++b)
      h.index({a, b}).sub_(2 * at2(vectors, a, i) * at2(vectors, b, i) / square);
  return h;
}
Tensor chain(const Tensor& vectors) {
  Tensor product = at::eye(vectors.size(0), at::kDouble);
  for (int64_t i = 0; i < vectors.size(1); ++i)
    product = naive_product(product, reflection(vectors, i));
  return product;
}

TEST(Hra, TheWeightIsMultipliedByTheReflectionsInTurn) {
  const std::unique_ptr<MethodBench> bench = hra();
  bench->disturb();
  const Tensor h = chain(bench->parameter_of(kUp + "/u"));
  EXPECT_LE(difference(bench->folded(kUp).weight, naive_product(bench->weight_of(kUp), h)), 1e-12);
  EXPECT_LE(difference(naive_product(h.t(), h), at::eye(6, at::kDouble)), 1e-12);
  EXPECT_EQ(difference(bench->folded(kUp).bias, bench->bias(bench->site(kUp))), 0);
}

TEST(Hra, AnEvenChainBeginsAsTheIdentityBecauseNeighboursAreEqual) {
  const std::unique_ptr<MethodBench> bench = hra({{"rank", 4}});
  const Tensor u = bench->parameter_of(kUp + "/u");
  for (const int64_t i : {0, 2}) EXPECT_TRUE(at::equal(u.select(1, i), u.select(1, i + 1)));
  EXPECT_FALSE(at::equal(u.select(1, 1), u.select(1, 2)));
  EXPECT_LE(difference(bench->folded(kUp).weight, bench->weight_of(kUp)), 1e-14);
  const std::unique_ptr<MethodBench> odd = hra();
  EXPECT_GT(difference(odd->folded(kUp).weight, odd->weight_of(kUp)), 1e-3);
}

TEST(Hra, GramSchmidtReflectsInAnOrthonormalBasisOfTheVectors) {
  const std::unique_ptr<MethodBench> bench = hra({{"gram_schmidt", true}});
  bench->disturb();
  // The projection onto the span of the vectors does not depend on how a basis of it is made.
  const Tensor u = bench->parameter_of(kUp + "/u").detach();
  const Tensor projection =
      naive_product(naive_product(u, at::inverse(naive_product(u.t(), u))), u.t());
  const Tensor expected =
      naive_product(bench->weight_of(kUp), at::eye(6, at::kDouble) - projection * 2);
  EXPECT_LE(difference(bench->folded(kUp).weight, expected), 1e-10);
}

TEST(Hra, ThePenaltyIsTheSquaredDistanceOfTheUnitVectorsFromOrthogonality) {
  const std::unique_ptr<MethodBench> bench = hra({{"orthogonal", 0.2}});
  bench->disturb();
  double expected = 0;
  for (const std::string& site : {kUp, std::string("enc.1.self.q")}) {
    const Tensor u = bench->parameter_of(site + "/u");
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        double product = 0, left = 0, right = 0;
        for (int64_t a = 0; a < u.size(0); ++a) {
          product += at2(u, a, i) * at2(u, a, j);
          left += at2(u, a, i) * at2(u, a, i);
          right += at2(u, a, j) * at2(u, a, j);
        }
        const double distance = product / std::sqrt(left * right) - (i == j ? 1 : 0);
        expected += distance * distance;
      }
  }
  EXPECT_NEAR(bench->tuner().penalty().item<double>(), 0.2 * expected, 1e-12);
  EXPECT_FALSE(hra()->tuner().penalty().defined());
}

TEST(Hra, GradientsAreThoseOfFiniteDifferences) {
  for (const bool strict : {false, true}) {
    const std::unique_ptr<MethodBench> bench = hra({{"gram_schmidt", strict}});
    bench->disturb();
    const Tensor by = MethodBench::draw("loss", {8, 6});
    expect_gradient(bench->parameter_of(kUp + "/u"),
                    [&] { return (bench->folded(kUp).weight * by).sum(); });
  }
}

TEST(Hra, TrainsAVectorOfTheInputsForEachReflection) {
  const std::unique_ptr<MethodBench> bench = hra();
  EXPECT_EQ(bench->trained(), 3 * 6 + 3 * 6);
  EXPECT_EQ(bench->formula("hra", {kUp, "enc.1.self.q"}), bench->trained());
}

}  // namespace hra_test
}  // namespace attune
