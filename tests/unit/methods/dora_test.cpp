#include <cmath>

#include "method_bench.h"

namespace attune {
namespace dora_test {

const char* const kUp = "enc.0.ffn.up";

std::unique_ptr<MethodBench> dora(Json options = Json::object()) {
  std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  options.update(Json{{"rank", 3}, {"alpha", 6}, {"sites", kUp}});
  bench->attach("dora", options);
  return bench;
}

/// V = W + s B A by loops; s = alpha / rank = 2.
Tensor direction(const MethodBench& bench) {
  return bench.weight_of(kUp) + naive_product(bench.parameter_of("enc.0.ffn.up/up"),
                                              bench.parameter_of("enc.0.ffn.up/down")) *
                                    2.0;
}
Tensor lengths(const Tensor& v) {
  Tensor result = at::zeros({v.size(0), 1}, at::kDouble);
  for (int64_t i = 0; i < v.size(0); ++i) {
    double sum = 0;
    for (int64_t j = 0; j < v.size(1); ++j) sum += at2(v, i, j) * at2(v, i, j);
    result.select(0, i).fill_(std::sqrt(sum));
  }
  return result;
}

TEST(Dora, RowsHaveTheDirectionOfTheUpdateAndTheLengthOfTheMagnitude) {
  const std::unique_ptr<MethodBench> bench = dora();
  bench->disturb();
  const Tensor v = direction(*bench), n = lengths(v), got = bench->folded(kUp).weight;
  const Tensor magnitude = bench->parameter_of("enc.0.ffn.up/magnitude");
  for (int64_t i = 0; i < 8; ++i)
    for (int64_t j = 0; j < 6; ++j)
      EXPECT_NEAR(at2(got, i, j), at1(magnitude, i) * at2(v, i, j) / at2(n, i, 0), 1e-12);
  EXPECT_LE(difference(lengths(got), magnitude.detach().abs().reshape({-1, 1})), 1e-12);
}

TEST(Dora, BeginsBitIdenticalToTheBase) {
  const std::unique_ptr<MethodBench> bench = dora();
  EXPECT_EQ(difference(bench->folded(kUp).weight, bench->weight_of(kUp)), 0);
  EXPECT_LE(difference(bench->parameter_of("enc.0.ffn.up/magnitude"),
                       lengths(bench->weight_of(kUp)).reshape({-1})),
            1e-12);
}

TEST(Dora, TheBiasIsNotScaled) {
  const std::unique_ptr<MethodBench> bench = dora();
  bench->disturb();
  EXPECT_EQ(difference(bench->folded(kUp).bias, bench->bias(bench->site(kUp))), 0);
}

TEST(Dora, TheNormIsAConstantInTheBackwardPass) {
  const std::unique_ptr<MethodBench> bench = dora();
  bench->disturb();
  const Tensor c = MethodBench::draw("c", {8, 6}), n = lengths(direction(*bench));
  // d/dB of sum c m V / n with n held fixed: s (c m / n) A^T; the same for A and m.
  const Tensor up = bench->parameter_of("enc.0.ffn.up/up"),
               down = bench->parameter_of("enc.0.ffn.up/down"),
               magnitude = bench->parameter_of("enc.0.ffn.up/magnitude");
  const Tensor weighted = c * magnitude.detach().reshape({-1, 1}) / n;
  backward((bench->folded(kUp).weight * c).sum());
  EXPECT_LE(difference(up.grad(), naive_product(weighted, down.t()) * 2.0), 1e-10);
  EXPECT_LE(difference(down.grad(), naive_product(up.t(), weighted) * 2.0), 1e-10);
  EXPECT_LE(difference(magnitude.grad(), (c * direction(*bench) / n).sum(1)), 1e-10);
}

TEST(Dora, WithoutDetachingTheGradientIsThatOfFiniteDifferences) {
  const std::unique_ptr<MethodBench> bench = dora({{"detach_norm", false}});
  bench->disturb();
  const Tensor c = MethodBench::draw("c", {8, 6});
  for (const char* name : {"/up", "/down", "/magnitude"})
    expect_gradient(bench->parameter_of(std::string(kUp) + name),
                    [&] { return (bench->folded(kUp).weight * c).sum(); });
}

TEST(Dora, ARowOfZerosStaysZero) {
  const std::unique_ptr<MethodBench> bench = MethodBench::encoder(6, 8);
  const Tensor w = bench->weight_of(kUp).clone();
  w.select(0, 2).zero_();
  bench->set_base(kUp, w);
  bench->attach("dora", {{"rank", 2}, {"sites", kUp}});
  EXPECT_EQ(difference(bench->folded(kUp).weight, w), 0);
}

TEST(Dora, CountsLowRankAndMagnitude) {
  const std::unique_ptr<MethodBench> bench = dora();
  EXPECT_EQ(bench->trained(), 3 * (6 + 8) + 8);
  EXPECT_EQ(bench->formula("dora", {kUp}), 3 * (6 + 8) + 8);
}

TEST(Dora, BadOptionsSayWhatToDo) {
  EXPECT_NE(MethodBench::error_of("dora", {{"rank", 0}}).find("rank"), std::string::npos);
  EXPECT_EQ(MethodBench::error_of("dora", {{"rank", 7}}),
            "dora: rank 7 at enc.0.self.q is larger than the matrix [6, 6]; give a rank of at most "
            "6");
}

}  // namespace dora_test
}  // namespace attune
