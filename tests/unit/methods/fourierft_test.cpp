// FourierFT: the inverse transform of few entries, their places, the start.
#include <numbers>

#include "formula.h"
#include "method_bench.h"

namespace attune {
namespace fourierft_test {

const char* const kSite = "enc.0.self.q";

std::unique_ptr<MethodBench> bench_of(int64_t out, int64_t in, const Json& options) {
  std::unique_ptr<MethodBench> bench = std::make_unique<MethodBench>();
  bench->projection(kSite, out, in);
  bench->attach("fourierft", options);
  return bench;
}

/// scaling / (out in) * sum over entries of c cos(2 pi (u p / out + v q / in)).
Tensor naive_update(const Tensor& values, const Tensor& positions, int64_t out, int64_t in,
                    double scaling) {
  Tensor update = at::zeros({out, in}, at::kDouble);
  for (int64_t p = 0; p < out; ++p)
    for (int64_t q = 0; q < in; ++q) {
      double sum = 0;
      for (int64_t k = 0; k < values.numel(); ++k) {
        const double turns =
            at2(positions, 0, k) * static_cast<double>(p) / static_cast<double>(out) +
            at2(positions, 1, k) * static_cast<double>(q) / static_cast<double>(in);
        sum += at1(values, k) * std::cos(2 * std::numbers::pi * turns);
      }
      update.index({p, q}).fill_(scaling * sum / static_cast<double>(out * in));
    }
  return update;
}

TEST(FourierFt, TheUpdateIsTheRealPartOfTheInverseTransform) {
  // Odd and even sides: the last column of an even one has no mirror image.
  for (const std::pair<int64_t, int64_t>& shape :
       {std::pair<int64_t, int64_t>{6, 8}, {5, 7}, {6, 7}, {5, 8}, {1, 4}, {4, 1}}) {
    const int64_t entries = std::min<int64_t>(9, shape.first * shape.second);
    const std::unique_ptr<MethodBench> bench =
        bench_of(shape.first, shape.second, {{"frequencies", entries}, {"scaling", 3}});
    const Tensor update = bench->folded(kSite).weight - bench->weight_of(kSite);
    EXPECT_LT(difference(update, naive_update(bench->parameter_of("enc.0.self.q/spectrum"),
                                              bench->buffers.at("enc.0.self.q/positions"),
                                              shape.first, shape.second, 3)),
              1e-14)
        << shape.first << " x " << shape.second;
  }
}

TEST(FourierFt, EveryEntryOfTheSpectrumIsRightByItself) {
  const std::unique_ptr<MethodBench> bench = bench_of(4, 6, {{"frequencies", 24}, {"scaling", 1}});
  for (int64_t k = 0; k < 24; ++k) {
    const Tensor one = at::zeros({24}, at::kDouble);
    one.select(0, k).fill_(1);
    bench->set("enc.0.self.q/spectrum", one);
    EXPECT_LT(difference(bench->folded(kSite).weight - bench->weight_of(kSite),
                         naive_update(one, bench->buffers.at("enc.0.self.q/positions"), 4, 6, 1)),
              1e-14)
        << k;
  }
}

TEST(FourierFt, PlacesAreDistinctAndTheSameForOneShape) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder();
  bench->attach("fourierft", {{"frequencies", 30}});
  const Tensor q = bench->buffers.at("enc.0.self.q/positions"),
               v = bench->buffers.at("enc.1.self.v/positions");
  EXPECT_TRUE(at::equal(q, v));
  std::set<int64_t> places;
  for (int64_t k = 0; k < 30; ++k)
    places.insert(static_cast<int64_t>(at2(q, 0, k)) * 6 + static_cast<int64_t>(at2(q, 1, k)));
  EXPECT_EQ(places.size(), 30u);
  EXPECT_GE(*places.begin(), 0);
  EXPECT_LT(*places.rbegin(), 36);
}

TEST(FourierFt, PlacesAreThoseThatPeftDrawsFromTheSeed) {
  // torch.randperm(20, generator=torch.Generator().manual_seed(777)) of torch 2.15.0 begins
  // 15, 0, 9, 11, 3, 7.
  const std::unique_ptr<MethodBench> bench = bench_of(4, 5, {{"frequencies", 6}});
  const Tensor places = bench->buffers.at("enc.0.self.q/positions");
  const std::vector<int64_t> expected{15, 0, 9, 11, 3, 7};
  for (int64_t k = 0; k < 6; ++k)
    EXPECT_EQ(at2(places, 0, k) * 5 + at2(places, 1, k),
              static_cast<double>(expected[static_cast<size_t>(k)]));
}

TEST(FourierFt, StartsStandardNormalOrAtTheBase) {
  const std::unique_ptr<MethodBench> normal = bench_of(40, 50, {{"frequencies", 2000}});
  const Tensor spectrum = normal->parameter_of("enc.0.self.q/spectrum").detach();
  EXPECT_NEAR(spectrum.mean().item<double>(), 0, 0.1);
  EXPECT_NEAR(spectrum.std().item<double>(), 1, 0.1);
  const std::unique_ptr<MethodBench> zeros =
      bench_of(6, 6, {{"frequencies", 4}, {"init", "zeros"}});
  EXPECT_EQ(difference(zeros->folded(kSite).weight, zeros->weight_of(kSite)), 0);
}

TEST(FourierFt, GradientsAreThoseOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = bench_of(5, 6, {{"frequencies", 30}, {"scaling", 9}});
  const Tensor probe = MethodBench::draw("probe", {5, 6});
  expect_gradient(bench->parameter_of("enc.0.self.q/spectrum"),
                  [&] { return (bench->folded(kSite).weight * probe).sum(); });
}

TEST(FourierFt, TrainsTheFrequenciesOfEveryProjection) {
  EXPECT_EQ(bench_of(6, 6, {{"frequencies", 7}})->trained(), 7);
  // RoBERTa-base, n = 1000 on query and value: 0.024 million in the paper.
  EXPECT_EQ(formula_of("fourierft", Json::object(), blocks_of(12, 768, 3072, {"self.q", "self.v"})),
            24000);
}

TEST(FourierFt, MoreFrequenciesThanEntriesAreRefused) {
  EXPECT_EQ(MethodBench::error_of("fourierft", {{"frequencies", 37}}),
            "fourierft: 37 frequencies at enc.0.self.q are more than the 36 entries of the matrix "
            "[6, 6]; give at most that many");
}

}  // namespace fourierft_test
}  // namespace attune
