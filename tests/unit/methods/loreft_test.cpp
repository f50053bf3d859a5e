// loreft: the intervention, its orthonormal rows, the positions, counts, errors.
#include "flow_bench.h"

namespace attune {
namespace loreft_test {

const std::string kLoreftSite = "enc.1.resid.out";
const std::vector<std::string> kLoreftSites{"enc.0.resid.out", "enc.1.resid.out"};

/// Rows of `a` made orthonormal by Gram-Schmidt, first to last.
Tensor gram_schmidt(const Tensor& a) {
  Tensor r = a.detach().clone();
  for (int64_t i = 0; i < r.size(0); ++i) {
    for (int64_t j = 0; j < i; ++j) {
      double dot = 0;
      for (int64_t c = 0; c < r.size(1); ++c) dot += at2(r, i, c) * at2(r, j, c);
      for (int64_t c = 0; c < r.size(1); ++c) r.index({i, c}).sub_(dot * at2(r, j, c));
    }
    double norm = 0;
    for (int64_t c = 0; c < r.size(1); ++c) norm += at2(r, i, c) * at2(r, i, c);
    r.select(0, i).div_(std::sqrt(norm));
  }
  return r;
}

/// h + R^T (f(W h + b) - R h) in every row; direft: h + R^T f(W h + b).
template <class F>
Tensor naive_reft(const MethodBench& bench, const std::string& prefix, const Tensor& h, bool direft,
                  const F& f) {
  const auto tensor = [&](const char* name) {
    return bench.parameter_of(kLoreftSite + "/" + prefix + name).detach();
  };
  const Tensor r = direft ? tensor("rotation") : gram_schmidt(tensor("rotation"));
  Tensor inner = each(naive_linear(h, tensor("weight"), tensor("bias")), f);
  if (!direft) inner = inner - naive_linear(h, r);
  return h + naive_product(inner, r);
}
double same(double x) {
  return x;
}

TEST(Loreft, ChangesTheFirstAndLastRowsWithinTheSubspace) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("loreft", {{"rank", 2}, {"first", 1}, {"last", 2}});
  bench->disturb();
  tuner.prepare({});
  Flow flow;
  flow.lengths = {5, 3};
  const Tensor h = rows_named("h", 8, 6), y = run_site(*bench, kLoreftSite, h, flow);
  const Tensor all = naive_reft(*bench, "", h, false, same);
  const std::set<int64_t> changed{0, 3, 4, 5, 6, 7};
  for (int64_t row = 0; row < 8; ++row)
    EXPECT_LE(difference(y[row], changed.count(row) > 0 ? all[row] : h[row]), 1e-13) << row;
  EXPECT_EQ(bench->trained(), bench->formula("loreft", kLoreftSites));
  EXPECT_EQ(bench->trained(), 2 * (2 * 2 * 6 + 2));
}

TEST(Loreft, OutsideTheSubspaceARowStaysAsItWas) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("loreft", {{"rank", 3}});
  bench->disturb();
  tuner.prepare({});
  const Tensor r = gram_schmidt(bench->parameter_of(kLoreftSite + "/rotation"));
  const Tensor h = rows_named("h", 5, 6), y = run_site(*bench, kLoreftSite, h);
  const auto outside = [&](const Tensor& x) { return x - naive_product(naive_linear(x, r), r); };
  EXPECT_LE(difference(outside(y), outside(h)), 1e-13);
  // Inside it is W h + b.
  EXPECT_LE(
      difference(naive_linear(y, r), naive_linear(h, bench->parameter_of(kLoreftSite + "/weight"),
                                                  bench->parameter_of(kLoreftSite + "/bias"))),
      1e-13);
}

TEST(Loreft, UntiedEndsHaveSubspacesOfTheirOwn) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("loreft", {{"rank", 2}, {"first", 1}, {"last", 1}, {"tied", false}});
  bench->disturb();
  tuner.prepare({});
  const Tensor h = rows_named("h", 5, 6), y = run_site(*bench, kLoreftSite, h);  // lengths 3, 2
  const Tensor first = naive_reft(*bench, "first_", h, false, same),
               last = naive_reft(*bench, "last_", h, false, same);
  EXPECT_LE(difference(y[0], first[0]), 1e-13);
  EXPECT_EQ(difference(y[1], h[1]), 0);
  EXPECT_LE(difference(y[2], last[2]), 1e-13);
  EXPECT_LE(difference(y[3], first[3]), 1e-13);
  EXPECT_LE(difference(y[4], last[4]), 1e-13);
  EXPECT_EQ(bench->trained(), bench->formula("loreft", kLoreftSites));
}

TEST(Loreft, DireftAddsWithoutOrthonormalRows) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("loreft", {{"rank", 2}, {"form", "direft"}, {"activation", "gelu"}});
  bench->disturb();
  tuner.prepare({});
  const Tensor h = rows_named("h", 5, 6);
  EXPECT_LE(difference(run_site(*bench, kLoreftSite, h), naive_reft(*bench, "", h, true, gelu)),
            1e-13);
}

TEST(Loreft, GradientsGoThroughTheOrthonormalRows) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("loreft", {{"rank", 3}, {"first", 1}, {"last", 1}});
  bench->disturb();
  const Tensor h = rows_named("h", 5, 6), weights = rows_named("loss", 5, 6);
  for (const char* name : {"rotation", "weight", "bias"})
    expect_gradient(bench->parameter_of(kLoreftSite + "/" + name), [&] {
      tuner.prepare({});
      return (run_site(*bench, kLoreftSite, h) * weights).sum();
    });
}

/// Which rows of sequences of these lengths change.
std::vector<int64_t> changed_rows(int64_t first, int64_t last,
                                  const std::vector<int64_t>& lengths) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  bench->attach("loreft", {{"rank", 2}, {"first", first}, {"last", last}});
  Flow flow;
  flow.lengths = lengths;
  int64_t rows = 0;
  for (const int64_t length : lengths) rows += length;
  const Tensor h = rows_named("h", rows, 6), y = run_site(*bench, kLoreftSite, h, flow);
  std::vector<int64_t> result;
  for (int64_t row = 0; row < rows; ++row)
    if (!y[row].equal(h[row])) result.push_back(row);
  return result;
}

TEST(Loreft, PositionsAreCountedWithinEachSequence) {
  EXPECT_EQ(changed_rows(1, 0, {4, 1, 3}), (std::vector<int64_t>{0, 4, 5}));
  EXPECT_EQ(changed_rows(0, 2, {4, 1, 3}), (std::vector<int64_t>{2, 3, 4, 6, 7}));
  EXPECT_EQ(changed_rows(1, 1, {4, 1, 3}), (std::vector<int64_t>{0, 3, 4, 5, 7}));
  EXPECT_EQ(changed_rows(7, 7, {4, 1}), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(changed_rows(3, 0, {2, 5}), (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

TEST(Loreft, ARowIsNeverBothFirstAndLast) {
  const std::unique_ptr<MethodBench> bench = flow_encoder();
  Tuner& tuner = bench->attach("loreft", {{"rank", 2}, {"first", 3}, {"last", 3}, {"tied", false}});
  bench->disturb();
  tuner.prepare({});
  const Tensor h = rows_named("h", 5, 6), y = run_site(*bench, kLoreftSite, h);  // lengths 3, 2
  const Tensor first = naive_reft(*bench, "first_", h, false, same),
               last = naive_reft(*bench, "last_", h, false, same);
  for (int64_t row = 0; row < 5; ++row)
    EXPECT_LE(difference(y[row], row == 0 || row == 3 ? first[row] : last[row]), 1e-13) << row;
}

TEST(Loreft, DropoutActsOnTheChangedRows) {
  const std::unique_ptr<MethodBench> bench = flow_encoder(60);
  bench->attach("loreft", {{"rank", 2}, {"first", 1}, {"last", 0}, {"dropout", 0.5}});
  Flow flow;
  flow.pass.training = true;
  const Tensor h = rows_named("h", 5, 60);
  const Tensor y = run_site(*bench, kLoreftSite, h, flow).detach();
  const int64_t zeros = y[0].eq(0).sum().item<int64_t>();
  EXPECT_GT(zeros, 15);
  EXPECT_LT(zeros, 45);
  EXPECT_TRUE(y[1].equal(h[1]));
}

TEST(Loreft, BadOptionsAreReadableErrors) {
  EXPECT_EQ(flow_error("loreft", {{"rank", 7}}),
            "loreft: rank 7 at enc.0.resid.out is larger than the matrix [6, 6]; give a rank of at "
            "most 6");
  EXPECT_EQ(flow_error("loreft", {{"first", 0}, {"last", 0}}),
            "test: test.first: loreft: first and last are both 0, so that no row would change; "
            "give at least one of them");
}

}  // namespace loreft_test
}  // namespace attune
