// The loss over a vocabulary, made a few rows at a time, against the plain formula in double.
#include "kernels/ops/word_loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "tensor/autograd.h"
#include "tensor/matmul.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {
namespace word_loss_test {

constexpr int64_t kRows = 13, kFeatures = 5, kWords = 29;

Tensor noise(const std::string& name, const std::vector<int64_t>& shape, at::ScalarType type) {
  const Stream64 stream(3, name);
  Tensor x = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < x.numel(); ++i)
    static_cast<double*>(x.data_ptr())[i] = stream.normal(static_cast<uint64_t>(i));
  return x.to(type);
}

struct Problem {
  Tensor x, weight, bias, labels, class_weights;
  double smoothing = 0;
};

Problem problem(at::ScalarType type, bool weighted) {
  Problem p;
  p.x = as_leaf(noise("x", {kRows, kFeatures}, type));
  p.weight = as_leaf(noise("w", {kWords, kFeatures}, type));
  p.bias = as_leaf(noise("b", {kWords}, type));
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < kRows; ++i) labels.push_back(i % 3 == 1 ? -100 : (7 * i) % kWords);
  p.labels = int64_tensor(labels);
  if (weighted) p.class_weights = noise("c", {kWords}, type).abs() + 0.1;
  p.smoothing = weighted ? 0.2 : 0;
  return p;
}

/// Sum, count and gradients by loops over the definition.
struct Expected {
  double sum = 0, count = 0;
  Tensor dx, dw, db;
};

Expected by_loops(const Problem& p) {
  const Tensor x = p.x.detach().to(at::kDouble), w = p.weight.detach().to(at::kDouble);
  const Tensor b = p.bias.detach().to(at::kDouble);
  Expected e{0, 0, at::zeros_like(x), at::zeros_like(w), at::zeros_like(b)};
  const auto value = [](const Tensor& t, int64_t i, int64_t j) {
    return static_cast<double*>(t.data_ptr())[i * t.size(1) + j];
  };
  const auto weight_of = [&](int64_t c) {
    return p.class_weights.defined() ? p.class_weights[c].item<double>() : 1.0;
  };
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t label = p.labels[r].item<int64_t>();
    if (label == -100) continue;
    std::vector<double> z(kWords);
    double total = 0;
    for (int64_t c = 0; c < kWords; ++c) {
      z[static_cast<size_t>(c)] = b[c].item<double>();
      for (int64_t f = 0; f < kFeatures; ++f)
        z[static_cast<size_t>(c)] += value(x, r, f) * value(w, c, f);
      total += std::exp(z[static_cast<size_t>(c)]);
    }
    // target[c]: what each class's negative log-likelihood is multiplied by.
    std::vector<double> target(kWords);
    double mass = 0;
    for (int64_t c = 0; c < kWords; ++c) {
      const double hard = c == label ? (1 - p.smoothing) * weight_of(label) : 0;
      target[static_cast<size_t>(c)] = hard + p.smoothing / kWords * weight_of(c);
      mass += target[static_cast<size_t>(c)];
    }
    e.count += weight_of(label);
    for (int64_t c = 0; c < kWords; ++c) {
      const size_t at = static_cast<size_t>(c);
      e.sum += target[at] * (std::log(total) - z[at]);
      const double dz = mass * std::exp(z[at]) / total - target[at];
      e.db[c] += dz;
      for (int64_t f = 0; f < kFeatures; ++f) {
        e.dx[r][f] += dz * value(w, c, f);
        e.dw[c][f] += dz * value(x, r, f);
      }
    }
  }
  return e;
}

double distance(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

void expect_matches(const Problem& p, int64_t chunk, double factor, double tolerance) {
  for (const Tensor& leaf : {p.x, p.weight, p.bias}) leaf.mutable_grad() = Tensor();
  const CrossEntropy found = word_cross_entropy(p.x, {p.weight, p.bias, nullptr}, p.labels,
                                                p.class_weights, p.smoothing, chunk);
  const Expected expected = by_loops(p);
  EXPECT_NEAR(found.sum.item<double>(), expected.sum, tolerance * expected.sum);
  EXPECT_NEAR(found.count, expected.count, tolerance * expected.count);
  backward(found.sum * factor);
  EXPECT_LE(distance(p.x.grad(), expected.dx * factor), tolerance * factor);
  EXPECT_LE(distance(p.weight.grad(), expected.dw * factor), tolerance * factor);
  EXPECT_LE(distance(p.bias.grad(), expected.db * factor), tolerance * factor);
}

TEST(WordCrossEntropy, IsTheFormulaAndItsGradientForAnyChunk) {
  for (const bool weighted : {false, true})
    for (const int64_t chunk : {1, 3, 8, 100}) {
      expect_matches(problem(at::kDouble, weighted), chunk, 1.0, 1e-12);
      expect_matches(problem(at::kDouble, weighted), chunk, 2.5, 1e-12);
      expect_matches(problem(at::kFloat, weighted), chunk, 0.5, 2e-5);
    }
}

TEST(WordCrossEntropy, AgreesWithTheLossOfReadyLogits) {
  const Problem p = problem(at::kDouble, true);
  const Tensor logits = matmul(p.x, p.weight, false, true) + p.bias;
  const CrossEntropy whole = cross_entropy(logits, p.labels, p.class_weights, p.smoothing);
  const CrossEntropy found = word_cross_entropy(p.x, {p.weight, p.bias, nullptr}, p.labels,
                                                p.class_weights, p.smoothing, 4);
  EXPECT_NEAR(found.sum.item<double>(), whole.sum.item<double>(), 1e-12);
  EXPECT_EQ(found.count, whole.count);
}

TEST(WordCrossEntropy, MakesGradientsOnlyForWhatWantsThem) {
  Problem p = problem(at::kFloat, false);
  p.weight = p.weight.detach();
  p.bias = Tensor();
  const CrossEntropy found =
      word_cross_entropy(p.x, {p.weight, p.bias, nullptr}, p.labels, Tensor(), 0, 4);
  backward(found.sum);
  EXPECT_TRUE(p.x.grad().defined());
  EXPECT_FALSE(p.weight.grad().defined());
  // Rows without a label get none.
  EXPECT_EQ(p.x.grad()[1].abs().max().item<double>(), 0);
}

TEST(WordCrossEntropy, OfRowsWithoutLabelsIsZero) {
  const Problem p = problem(at::kFloat, false);
  const CrossEntropy found = word_cross_entropy(p.x, {p.weight, p.bias, nullptr},
                                                at::full_like(p.labels, -100), Tensor(), 0);
  EXPECT_EQ(found.sum.item<double>(), 0);
  EXPECT_EQ(found.count, 0);
  backward(found.sum);
  EXPECT_EQ(p.x.grad().abs().max().item<double>(), 0);
}

TEST(WordRowLosses, AreTheNegativeLogLikelihoodsOfTheLabels) {
  const Problem p = problem(at::kDouble, false);
  const Tensor logits = matmul(p.x, p.weight, false, true).detach() + p.bias.detach();
  const Tensor found = word_row_losses(p.x, {p.weight, p.bias, nullptr}, p.labels, 3);
  EXPECT_LE(distance(found, row_losses(logits, p.labels)), 1e-12);
  EXPECT_NEAR(found.sum().item<double>(), by_loops(p).sum, 1e-10);
  EXPECT_EQ(found[1].item<double>(), 0);
}

TEST(WordCrossEntropy, RefusesALabelOutsideTheVocabulary) {
  Problem p = problem(at::kFloat, false);
  p.labels[2] = kWords;
  try {
    word_cross_entropy(p.x, {p.weight, p.bias, nullptr}, p.labels, Tensor(), 0);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadInput);
    EXPECT_STREQ(error.what(),
                 "the loss of a language model: a label is 29, and the model has 29 words; "
                 "check that the tokenizer belongs to the model");
  }
}

TEST(WordChunkRows, KeepsAChunkOfLogitsSmall) {
  EXPECT_EQ(word_chunk_rows(32000), 256);
  EXPECT_EQ(word_chunk_rows(1 << 30), 64);
}

}  // namespace word_loss_test
}  // namespace attune
