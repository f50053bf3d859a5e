// HRA: a chain of trained Householder reflections turns the inputs of frozen projections.
#include <cmath>
#include <string>
#include <vector>

#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Column i of a matrix, divided by its length: [n, 1].
Tensor unit_column(const Tensor& u, int64_t i) {
  const Tensor column = u.narrow(1, i, 1);
  return column / column.norm();
}

/// U and V with H_1 ... H_r = I - V U^T, where H_i = I - 2 u_i u_i^T and u_i has length 1:
/// v_i = 2 H_1 ... H_(i-1) u_i, so that W H_1 ... H_r costs two products of rank r.
struct Reflections {
  Tensor u, v;  // [in, rank]
};
Reflections chain_of(const Tensor& vectors) {
  Tensor u = unit_column(vectors, 0), v = u * 2;
  for (int64_t i = 1; i < vectors.size(1); ++i) {
    const Tensor next = unit_column(vectors, i);
    const Tensor reflected = next - attune::matmul(v, attune::matmul(u, next, true, false));
    u = at::cat({u, next}, 1);
    v = at::cat({v, reflected * 2}, 1);
  }
  return {u, v};
}

/// The same of orthonormal vectors, made one after another by Gram and Schmidt: v_i = 2 u_i.
Reflections orthogonal_chain_of(const Tensor& vectors) {
  Tensor u = unit_column(vectors, 0);
  for (int64_t i = 1; i < vectors.size(1); ++i) {
    Tensor next = vectors.narrow(1, i, 1);
    for (int64_t j = 0; j < i; ++j) {
      const Tensor before = u.narrow(1, j, 1);
      next = next - before * (before * next).sum();
    }
    u = at::cat({u, unit_column(next, 0)}, 1);
  }
  return {u, u * 2};
}

class Hra final : public Tuner {
 public:
  explicit Hra(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        gram_schmidt_(options.get<bool>("gram_schmidt")),
        orthogonal_(options.get<double>("orthogonal")) {}

  void attach(Attachment& attachment) override {
    for (const Site& site : projections(attachment, sites_, "hra")) {
      check_rank("hra", rank_, site);
      attach_to(attachment, site);
    }
  }

  /// The sum over sites of ||I - U^T U||_F^2, U the vectors divided by their lengths.
  Tensor penalty() const override {
    if (orthogonal_ == 0 || gram_schmidt_) return {};
    Tensor sum;
    for (const Tensor& vectors : vectors_) {
      const Tensor u = vectors / vectors.norm(2, {0}, true);
      const Tensor one = at::eye(rank_, u.options().requires_grad(false));
      const Tensor distance = (attune::matmul(u, u, true, false) - one).square().sum();
      sum = sum.defined() ? sum + distance : distance;
    }
    return sum * orthogonal_;
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const Tensor vectors = attachment.parameter(site, "u", first_vectors(attachment, site));
    vectors_.push_back(vectors);
    const bool strict = gram_schmidt_;
    attachment.add(site, Reweight{[vectors, strict](const Tensor& w) {
                     const Reflections chain =
                         strict ? orthogonal_chain_of(vectors) : chain_of(vectors);
                     return w - attune::matmul(attune::matmul(w, chain.v), chain.u, false, true);
                   }});
  }

  /// Pairs of equal vectors, whose reflections undo each other; the last of an odd number is alone.
  /// Differs: with Gram-Schmidt all are drawn on their own, since nothing is left of an equal
  /// vector after its projection is taken away (PEFT divides rounding errors by their length
  /// there).
  Tensor first_vectors(const Attachment& attachment, const Site& site) const {
    const int64_t drawn = gram_schmidt_ ? rank_ : (rank_ + 1) / 2;
    const Tensor half = attachment.uniform(site, "u", {site.in, drawn}, kaiming_bound(drawn));
    if (gram_schmidt_) return half;
    return half.repeat_interleave(2, 1).narrow(1, 0, rank_).contiguous();
  }

  std::vector<std::string> sites_;
  int64_t rank_;
  bool gram_schmidt_;
  double orthogonal_;
  std::vector<Tensor> vectors_;
};

}  // namespace

void register_hra(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "hra";
  entry.summary =
      "a chain of trained Householder reflections of a "
      "projection's inputs: W <- W H_1 ... H_r";
  entry.reference =
      "Yuan et al. 2024, \"Bridging The Gap between Low-rank and "
      "Orthogonal Adaptation via "
      "Householder Reflection Adaptation\", arXiv 2405.17484";
  entry.options = {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections whose inputs are reflected (globs over site names)"},
      {"rank", "int", "8", "[1, inf)",
       "reflections a site; with an even number the start is the base model"},
      {"gram_schmidt", "bool", "false", "",
       "make the vectors orthogonal; the start is then not the base model"},
      {"orthogonal", "number", "0", "[0, inf)",
       "weight of the penalty that keeps the vectors near orthogonal"},
  };
  entry.learning_rate = 5e-3;
  entry.tiny = "{rank: 2}";
  entry.examples = {"{}", "{rank: 4, orthogonal: 1e-3, sites: \"*.self.[qkvo]\"}",
                    "{rank: 8, gram_schmidt: true}"};
  entry.make = [](const Options& options) { return std::make_unique<Hra>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) count += options.get<int64_t>("rank") * site.in;
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
