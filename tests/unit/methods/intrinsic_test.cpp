// Intrinsic dimension: the Fastfood projection, one point for all projections, layer strengths.
#include "formula.h"
#include "method_bench.h"
#include "methods/fastfood.h"

namespace attune {
namespace intrinsic_test {

/// H[i][j] = (-1)^(number of ones of i and j).
Tensor naive_hadamard(int64_t n) {
  Tensor h = at::zeros({n, n}, at::kDouble);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      h.index({i, j}).fill_(__builtin_popcountll(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1);
  return h;
}

TEST(WalshHadamard, IsTheMatrixOfSigns) {
  for (const int64_t n : {1, 2, 8, 64}) {
    Tensor x = MethodBench::draw("x", {n, 1});
    const Tensor expected = naive_product(naive_hadamard(n), x);
    Tensor narrow = x.to(at::kFloat);
    walsh_hadamard(static_cast<double*>(x.data_ptr()), n);
    walsh_hadamard(static_cast<float*>(narrow.data_ptr()), n);
    EXPECT_LT(difference(x, expected), 1e-12);
    EXPECT_LT(difference(narrow, expected), 1e-4);
  }
}

TEST(WalshHadamard, TwiceIsTheLengthTimesTheVector) {
  const int64_t n = 1 << 15;  // beyond what is transformed in one cache block
  const Tensor x = MethodBench::draw("x", {n});
  Tensor y = x.clone();
  walsh_hadamard(static_cast<double*>(y.data_ptr()), n);
  EXPECT_NEAR(at1(y, 0), x.sum().item<double>(), 1e-9);
  walsh_hadamard(static_cast<double*>(y.data_ptr()), n);
  EXPECT_LT(difference(y / static_cast<double>(n), x), 1e-12);
}

/// H G P H B / sqrt(length sum g^2) as a dense matrix, cut to [length, size].
Tensor naive_projection(const Fastfood& f, int64_t size, int64_t length) {
  const int64_t n = f.rows();
  const Tensor h = naive_hadamard(n);
  Tensor b = at::zeros({n, size}, at::kDouble), p = at::zeros({n, n}, at::kDouble),
         g = at::zeros({n, n}, at::kDouble);
  double squares = 0;
  for (int64_t i = 0; i < size; ++i)
    b.index({i, i}).fill_(static_cast<double>(f.signs()[static_cast<size_t>(i)]));
  for (int64_t i = 0; i < n; ++i) {
    const double gi = static_cast<double>(f.scale()[static_cast<size_t>(i)]);
    p.index({i, static_cast<int64_t>(f.order()[static_cast<size_t>(i)])}).fill_(1);
    g.index({i, i}).fill_(gi);
    squares += gi * gi;
  }
  const Tensor product = naive_product(h, naive_product(g, naive_product(p, naive_product(h, b))));
  return product.slice(0, 0, length) / std::sqrt(static_cast<double>(length) * squares);
}

TEST(Fastfood, IsTheProductOfItsMatrices) {
  for (const std::pair<int64_t, int64_t>& sizes :
       {std::pair<int64_t, int64_t>{5, 30}, {8, 64}, {1, 7}, {20, 6}}) {
    const Fastfood f(7, sizes.first, sizes.second);
    const Tensor matrix = naive_projection(f, sizes.first, sizes.second);
    const Tensor z = MethodBench::draw("z", {sizes.first}),
                 x = MethodBench::draw("x", {sizes.second});
    EXPECT_LT(difference(f.times(z), naive_product(matrix, z.reshape({-1, 1})).reshape({-1})),
              1e-12);
    EXPECT_LT(difference(f.transposed_times(x),
                         naive_product(matrix.t(), x.reshape({-1, 1})).reshape({-1})),
              1e-12);
    EXPECT_LT(difference(f.times(z.to(at::kFloat)), f.times(z)), 1e-4);
  }
}

TEST(Fastfood, ThePermutationIsOneSignsAreFairAndNumbersStandardNormal) {
  const Fastfood f(9, 1024, 1024);  // the period is the whole length
  std::set<int32_t> places(f.order().begin(), f.order().end());
  EXPECT_EQ(places.size(), 1024u);
  double signs = 0, sum = 0, squares = 0;
  for (const float s : f.signs()) signs += static_cast<double>(s);
  for (const float g : f.scale()) {
    sum += static_cast<double>(g);
    squares += static_cast<double>(g) * g;
  }
  EXPECT_LT(std::abs(signs), 5 * 32);
  EXPECT_LT(std::abs(sum), 5 * 32);
  EXPECT_NEAR(squares / 1024, 1, 0.25);
}

TEST(Fastfood, LengthsAreNearlyKept) {
  const Fastfood f(4, 50, 3000);
  const Tensor z = MethodBench::draw("z", {50});
  EXPECT_NEAR((f.times(z).norm() / z.norm()).item<double>(), 1, 0.05);
}

TEST(Fastfood, TheGradientIsThatOfFiniteDifferences) {
  const std::shared_ptr<const Fastfood> f = std::make_shared<const Fastfood>(4, 6, 20);
  const Tensor z = as_leaf(MethodBench::draw("z", {6})), probe = MethodBench::draw("probe", {20});
  expect_gradient(z, [&] { return (project(f, z) * probe).sum(); });
}

std::unique_ptr<MethodBench> attached(const Json& options) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  bench->attach("intrinsic", options);
  return bench;
}

TEST(Intrinsic, EveryProjectionMovesByItsOwnProjectionOfOnePoint) {
  const std::unique_ptr<MethodBench> bench =
      attached({{"sites", "*.self.[qv]"}, {"dimensions", 9}, {"layerwise", false}});
  bench->disturb();
  const Tensor z = bench->parameter_of("shared/point");
  const uint64_t key = static_cast<uint64_t>(bench->buffers.at("shared/key").item<int64_t>());
  for (const char* name : {"enc.0.self.q", "enc.0.self.v", "enc.1.self.q"}) {
    const Fastfood f(Stream64(key).with(std::string_view(name)).key(), 9, 36);
    const Tensor step =
        naive_product(naive_projection(f, 9, 36), z.reshape({-1, 1})).reshape({6, 6});
    EXPECT_LT(difference(bench->folded(name).weight, bench->weight_of(name) + step), 1e-12);
  }
}

TEST(Intrinsic, ALayersStrengthMultipliesItsSteps) {
  const std::unique_ptr<MethodBench> bench = attached({{"dimensions", 11}});
  EXPECT_EQ(bench->parameter_of("shared/point").numel(), 9);
  bench->set("shared/point", MethodBench::draw("p", {9}));
  EXPECT_EQ(difference(bench->parameter_of("shared/strength"), at::ones({2}, at::kDouble)), 0);
  const std::vector<std::string> names{"enc.0.ffn.up", "enc.0.self.o", "enc.1.self.o"};
  std::vector<Tensor> steps;
  for (const std::string& name : names)
    steps.push_back((bench->folded(name).weight - bench->weight_of(name)).detach());
  bench->set("shared/strength", at::tensor({3.0, -0.5}, at::kDouble));
  const std::vector<double> strengths{3, 3, -0.5};
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_LT(difference(bench->folded(names[i]).weight,
                         bench->weight_of(names[i]) + steps[i] * strengths[i]),
              1e-13);
}

TEST(Intrinsic, StartsAsTheBase) {
  const std::unique_ptr<MethodBench> bench = attached({{"dimensions", 9}});
  EXPECT_EQ(bench->edits.size(), 12u);
  EXPECT_EQ(difference(bench->folded("enc.1.ffn.down").weight, bench->weight_of("enc.1.ffn.down")),
            0);
}

TEST(Intrinsic, ALoadedKeyReplacesTheRandomMatrices) {
  const std::unique_ptr<MethodBench> bench =
      attached({{"sites", "*.self.q"}, {"dimensions", 9}, {"layerwise", false}});
  bench->disturb();
  const Tensor before = bench->folded("enc.0.self.q").weight;
  Tensor key = bench->buffers.at("shared/key");
  const int64_t kept = key.item<int64_t>();
  key.fill_(12345);
  const Fastfood f(Stream64(12345).with("enc.0.self.q").key(), 9, 36);
  EXPECT_LT(difference(bench->folded("enc.0.self.q").weight,
                       bench->weight_of("enc.0.self.q") +
                           f.times(bench->parameter_of("shared/point").detach()).reshape({6, 6})),
            1e-15);
  key.fill_(kept);
  EXPECT_EQ(difference(bench->folded("enc.0.self.q").weight, before), 0);
}

TEST(Intrinsic, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = attached({{"sites", "*.self.q"}, {"dimensions", 7}});
  bench->disturb();
  const Tensor probe = MethodBench::draw("probe", {2, 6, 6});
  for (const char* name : {"shared/point", "shared/strength"})
    expect_gradient(bench->parameter_of(name), [&] {
      return (bench->folded("enc.0.self.q").weight * probe.select(0, 0)).sum() +
             (bench->folded("enc.1.self.q").weight * probe.select(0, 1)).sum();
    });
}

TEST(Intrinsic, TrainsTheDimensionsWhateverTheModel) {
  for (const bool layerwise : {false, true}) {
    EXPECT_EQ(attached({{"dimensions", 20}, {"layerwise", layerwise}})->trained(), 20);
    EXPECT_EQ(formula_of("intrinsic", {{"dimensions", 200}, {"layerwise", layerwise}},
                         blocks_of(12, 768, 3072, {"self.q", "ffn.up"})),
              200);
  }
}

TEST(Intrinsic, AsManyStrengthsAsDimensionsAreRefused) {
  EXPECT_EQ(MethodBench::error_of("intrinsic", {{"dimensions", 2}}),
            "intrinsic: of 2 dimensions 2 are the strengths of that many layers, which leaves none "
            "for the subspace; give more, or layerwise: false");
}

}  // namespace intrinsic_test
}  // namespace attune
