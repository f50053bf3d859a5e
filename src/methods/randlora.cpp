// RandLoRA: full-rank updates as scaled sums of frozen random low-rank bases.
#include <algorithm>
#include <cmath>

#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// How many bases of a rank reach the full rank of a matrix.
int64_t bases_of(int64_t smaller_side, int64_t rank) {
  return (smaller_side + rank - 1) / rank;
}

/// One site's trained diagonals and the sizes that choose its part of the shared bases.
struct Diagonals {
  Tensor lambda, gamma;  // [rank, bases], [bases, smaller side]
  int64_t in, out, bases;
};
struct Factors {
  Tensor down, up;  // [bases * rank, in], [out, bases * rank]
};

class Randlora final : public Tuner {
 public:
  explicit Randlora(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        scale_(low_rank_scale(options.get<double>("alpha"), rank_, false)),
        dropout_(options.get<double>("dropout")),
        bases_(options.get<std::string>("bases")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = projections(attachment, sites_, "randlora");
    int64_t in = 0, out = 0;
    for (const Site& site : sites) {
      check_rank("randlora", rank_, site);
      in = std::max(in, site.in);
      out = std::max(out, site.out);
    }
    // The trained diagonals act on the smaller side, so that there are fewest of them.
    const int64_t smaller = std::min(in, out), larger = std::max(in, out);
    basis_a_ = basis(attachment, "basis_a", {rank_, 1, smaller}, smaller, smaller);
    basis_b_ =
        basis(attachment, "basis_b", {larger, bases_of(smaller, rank_), rank_}, rank_, smaller);
    for (const Site& site : sites) attach_to(attachment, site);
    prepare({});
  }

  void prepare(const Pass&) override {
    for (const Place& place : places_) {
      const Factors factors = factors_of(place.diagonals);
      LowRank& edit = std::get<LowRank>(*place.edit);
      edit.down = factors.down.slice(0, place.first, place.last);
      edit.up = factors.up.slice(1, place.first, place.last);
    }
  }

 private:
  struct Place {
    Edit* edit;
    Diagonals diagonals;
    int64_t first, last;  // the inner sizes [first, last) of this edit
  };

  /// A frozen random tensor of unit standard deviation, as PEFT normalises it: uniform, or -1, 0
  /// and 1 with the chances 1/2s, 1 - 1/s, 1/2s, s being 3 (sparse) or the square root of the
  /// smaller side (very_sparse).
  Tensor basis(Attachment& attachment, const char* name, const std::vector<int64_t>& shape,
               int64_t inputs, int64_t smaller) const {
    const Site shared = Site::shared();
    Tensor drawn = attachment.uniform(shared, name, shape, 1);
    if (bases_ == "dense") {
      drawn = drawn * kaiming_bound(inputs);
    } else {
      const double s = bases_ == "sparse" ? 3 : std::sqrt(static_cast<double>(smaller));
      drawn = at::where(drawn.abs() > 1 - 1 / s, drawn.sign(), at::zeros_like(drawn));
    }
    return attachment.buffer(shared, name, drawn / drawn.std());
  }

  /// W' = W + alpha / rank * sum_j B_j Lambda_j A Gamma_j (equation 4): the sum over bases is one
  /// product whose inner side runs over all of them.
  Factors factors_of(const Diagonals& site) const {
    const int64_t smaller = std::min(site.in, site.out), larger = std::max(site.in, site.out);
    const int64_t inner = site.bases * rank_;
    // PEFT flattens A by (row, basis) and B by (basis, row); files it wrote need the same order.
    const Tensor a =
        (basis_a_.slice(2, 0, smaller) * site.lambda.unsqueeze(2) * site.gamma.unsqueeze(0))
            .reshape({inner, smaller});
    const Tensor b = basis_b_.slice(0, 0, larger).slice(1, 0, site.bases).reshape({larger, inner});
    if (smaller == site.in) return {a, b};
    return {b.t(), a.t()};
  }

  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t smaller = std::min(site.in, site.out), bases = bases_of(smaller, rank_);
    const double gamma = 1.0 / static_cast<double>(std::max(bases, smaller));
    const Diagonals diagonals{
        attachment.parameter(site, "lambda", attachment.zeros({rank_, bases})),
        attachment.parameter(site, "gamma", attachment.ones({bases, smaller}) * gamma), site.in,
        site.out, bases};
    if (dropout_ > 0) {
      attach_low_rank(attachment, site, diagonals);
      return;
    }
    // A full-rank side-car costs more than the projection itself; the sum of weights does not.
    attachment.add(site, Reweight{[this, diagonals](const Tensor& w) {
                     const Factors factors = factors_of(diagonals);
                     return w + attune::matmul(factors.up, factors.down) * scale_;
                   }});
  }
  /// Dropout needs the update apart from the weight; no edit may be larger than the matrix.
  void attach_low_rank(Attachment& attachment, const Site& site, const Diagonals& diagonals) {
    const int64_t inner = diagonals.bases * rank_, most = std::min(site.in, site.out);
    for (int64_t first = 0; first < inner; first += most) {
      const int64_t last = std::min(inner, first + most);
      LowRank edit;
      edit.down = attachment.zeros({last - first, site.in});
      edit.up = attachment.zeros({site.out, last - first});
      edit.scale = scale_;
      edit.dropout = dropout_;
      places_.push_back({&attachment.add(site, edit), diagonals, first, last});
    }
  }

  std::vector<std::string> sites_;
  int64_t rank_;
  double scale_, dropout_;
  std::string bases_;
  Tensor basis_a_, basis_b_;
  std::vector<Place> places_;
};

}  // namespace

void register_randlora(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "randlora";
  entry.summary =
      "full-rank updates: frozen random low-rank bases, shared by all sites, weighted by trained "
      "diagonal matrices";
  entry.reference =
      "Albert et al. 2025, \"RandLoRA: Full-rank parameter-efficient fine-tuning of large "
      "models\", "
      "arXiv 2502.00987, equation 4";
  entry.options = {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "32", "[1, inf)", "rank of one basis; smaller means more parameters"},
      {"alpha", "number", "640", "(0, inf)", "strength: the update is scaled by alpha / rank"},
      {"bases", "choice", "dense", "dense|sparse|very_sparse",
       "entries of the bases: uniform, or -1, 0 and 1 with two thirds or nearly all of them zero"},
      {"dropout", "number", "0", "[0, 1)",
       "dropout on the update's input; costs a full-rank side-car at every site"},
  };
  entry.learning_rate = 1e-3;
  entry.tiny = "{rank: 3, alpha: 6}";
  entry.examples = {"{}", "{rank: 16, alpha: 320, sites: \"*.self.[qkvo]\"}",
                    "{rank: 32, bases: sparse}"};
  entry.make = [](const Options& options) { return std::make_unique<Randlora>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const int64_t rank = options.get<int64_t>("rank");
    int64_t count = 0;
    for (const Site& site : sites) {
      const int64_t smaller = std::min(site.in, site.out);
      count += bases_of(smaller, rank) * (rank + smaller);
    }
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
