// Projections of one input as one node, their low-rank terms with one product by all downs.
#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops/linear.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace projections_test {

Tensor draw(uint64_t key, int64_t rows, int64_t cols) {
  const Stream64 stream(key);
  std::vector<double> values;
  for (int64_t i = 0; i < rows * cols; ++i)
    values.push_back(stream.normal(static_cast<uint64_t>(i)));
  return at::tensor(values, at::kDouble).reshape({rows, cols});
}

constexpr int64_t kRows = 45, kIn = 40;
constexpr int64_t kOut[] = {40, 24, 33};

/// A query, key and value with terms of every kind: two at one output, narrow and wide ranks, one
/// with dropout, one output without any.
struct Case {
  at::ScalarType type, master;
  Tensor x;
  std::vector<Projection> projections;
  std::vector<LowRankTerm> terms;
  Tensor keys = at::arange(100, 100 + kRows, at::kLong);

  explicit Case(at::ScalarType compute)
      : type(compute), master(compute == at::kDouble ? at::kDouble : at::kFloat) {
    x = as_leaf(draw(1, kRows, kIn).to(type));
    for (uint64_t i = 0; i < 3; ++i)
      projections.push_back(
          {{leaf(10 + i, kOut[i], kIn)}, i == 1 ? Tensor() : leaf(20 + i, 1, kOut[i])});
    for (Projection& p : projections)
      if (p.bias.defined()) p.bias = as_leaf(p.bias.detach().reshape({-1}));
    term(0, 3, 0);
    term(0, 2, 0);
    term(0, 12, 0);
    term(0, 4, 0.4);
    term(2, 5, 0);
    term(2, 20, 0);
  }
  Tensor leaf(uint64_t key, int64_t rows, int64_t cols) const {
    return as_leaf((0.3 * draw(key, rows, cols)).to(master));
  }
  void term(size_t output, int64_t rank, double dropout) {
    const uint64_t key = 30 + 2 * terms.size();
    terms.push_back({leaf(key, rank, kIn), leaf(key + 1, kOut[output], rank), 0.5 + output, dropout,
                     static_cast<uint32_t>(7 + terms.size()), output});
  }
  /// Everything that gets a gradient.
  Tensors leaves() const {
    Tensors result{x};
    for (const Projection& p : projections) {
      result.push_back(p.weight.dense);
      if (p.bias.defined()) result.push_back(p.bias);
    }
    for (const LowRankTerm& t : terms) {
      result.push_back(t.down);
      result.push_back(t.up);
    }
    return result;
  }
  /// The outputs by the definition, in double: each projection and term by itself.
  Tensors defined() const {
    Tensors result;
    for (size_t i = 0; i < projections.size(); ++i) {
      const Tensor wide = x.to(at::kDouble);
      Tensor y = at::matmul(wide, projections[i].weight.dense.to(at::kDouble).t());
      if (projections[i].bias.defined()) y = y + projections[i].bias.to(at::kDouble);
      for (const LowRankTerm& t : terms) {
        if (t.output != i) continue;
        Tensor seen = wide;
        if (t.dropout > 0) {
          // The mask as a term alone applies it: a down and an up that are the identity.
          const Tensor eye = at::eye(kIn, at::kDouble);
          const at::NoGradGuard none;
          seen = low_rank(at::ones({kRows, kIn}, at::kDouble),
                          {eye, eye, 1, t.dropout, t.dropout_site}, keys);
        }
        if (t.dropout > 0) seen = seen * wide;
        y = y + t.scale * at::matmul(at::matmul(seen, t.down.to(at::kDouble).t()),
                                     t.up.to(at::kDouble).t());
      }
      result.push_back(y);
    }
    return result;
  }
};

/// Gradients of all leaves under a fixed weighting of the outputs; the outputs listed only.
Tensors gradients(const Case& c, const Tensors& outputs, const std::vector<size_t>& used) {
  for (const Tensor& leaf : c.leaves()) leaf.mutable_grad() = Tensor();
  Tensor sum = at::zeros({}, at::kDouble);
  for (const size_t i : used)
    sum = sum + (outputs[i].to(at::kDouble) * draw(90 + i, kRows, kOut[i])).sum();
  sum.backward();
  Tensors result;
  for (const Tensor& leaf : c.leaves())
    result.push_back(leaf.grad().defined() ? leaf.grad().to(at::kDouble)
                                           : at::zeros(leaf.sizes(), at::kDouble));
  return result;
}

void expect_near(const Tensor& ours, const Tensor& wanted, double tolerance, const char* what) {
  const double error = (ours.to(at::kDouble) - wanted).abs().max().item<double>();
  EXPECT_LE(error, tolerance * (1 + wanted.abs().max().item<double>())) << what;
}

TEST(Projections, OfOneInputGiveWhatTheirDefinitionDoes) {
  for (const std::pair<at::ScalarType, double>& kind :
       {std::pair(at::kDouble, 1e-12), std::pair(at::kFloat, 1e-5),
        std::pair(at::kBFloat16, 2e-2)}) {
    const Case c(kind.first);
    const Tensors ours = linear(c.x, c.projections, c.terms, c.keys), wanted = c.defined();
    for (size_t i = 0; i < 3; ++i) expect_near(ours[i], wanted[i].detach(), kind.second, "output");
    const std::vector<size_t> all = {0, 1, 2};
    const Tensors got = gradients(c, ours, all), right = gradients(c, wanted, all);
    for (size_t i = 0; i < got.size(); ++i)
      expect_near(got[i], right[i], kind.second, std::to_string(i).c_str());
  }
}

TEST(Projections, OneWhoseOutputNobodyUsesAddsNothingToAnyGradient) {
  const Case c(at::kDouble);
  const Tensors ours = linear(c.x, c.projections, c.terms, c.keys), wanted = c.defined();
  const Tensors got = gradients(c, ours, {1, 2}), right = gradients(c, wanted, {1, 2});
  for (size_t i = 0; i < got.size(); ++i)
    expect_near(got[i], right[i], 1e-12, std::to_string(i).c_str());
}

// A term alone and beside others has the same inner values and the same sum, so that taking one
// away leaves the other's result as it was.
TEST(Projections, ATermDoesNotDependOnThoseBesideIt) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Case c(type);
    const at::NoGradGuard none;
    std::vector<LowRankTerm> terms = {c.terms[0], c.terms[4]};
    const Tensors both = linear(c.x, c.projections, terms, c.keys);
    for (const LowRankTerm& term : terms) {
      const Tensors alone = linear(c.x, c.projections, {term}, c.keys);
      EXPECT_TRUE(at::equal(both[term.output], alone[term.output]));
    }
  }
}

}  // namespace projections_test
}  // namespace attune
