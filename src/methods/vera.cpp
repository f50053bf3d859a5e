// VeRA: one frozen pair of random matrices for all sites; each site trains two vectors.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Vera final : public Tuner {
 public:
  explicit Vera(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        initial_(options.get<double>("d_initial")),
        dropout_(options.get<double>("dropout")) {}

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites = projections(attachment, sites_, "vera");
    int64_t in = 0, out = 0;
    for (const Site& site : sites) {
      check(site);
      in = std::max(in, site.in);
      out = std::max(out, site.out);
    }
    // Kaiming-uniform for a rectifier: U(-sqrt(6 / inputs), sqrt(6 / inputs)). Sites smaller than
    // the largest use the first columns of A and rows of B.
    const Site shared = Site::shared();
    const auto frozen = [&](const char* name, int64_t rows, int64_t columns) {
      const double bound = std::sqrt(6.0 / static_cast<double>(columns));
      return attachment.buffer(shared, name,
                               attachment.uniform(shared, name, {rows, columns}, bound));
    };
    down_ = frozen("down", rank_, in);
    up_ = frozen("up", out, rank_);
    for (const Site& site : sites) attach_to(attachment, site);
    prepare({});
  }

  /// y += b o (B (d o (A x))): the vectors are multiplied into the matrices, so that every site is
  /// an ordinary low-rank update (equation 2).
  void prepare(const Pass&) override {
    for (const Place& place : places_) {
      LowRank& edit = std::get<LowRank>(*place.edit);
      const Tensor d = place.d.slice(0, place.first, place.last).reshape({-1, 1});
      edit.down = down_.slice(0, place.first, place.last).slice(1, 0, place.in) * d;
      edit.up =
          up_.slice(0, 0, place.out).slice(1, place.first, place.last) * place.b.reshape({-1, 1});
    }
  }

 private:
  struct Place {
    Edit* edit;
    Tensor d, b;
    int64_t in, out, first, last;  // the inner sizes [first, last) of this edit
  };

  void check(const Site& site) const {
    const int64_t most = site.in * site.out;
    if (rank_ > most)
      fail(ErrorCode::BadInput,
           "vera: rank {} at {} is larger than the number of weights of the matrix [{}, {}]; give "
           "a rank of at most {}",
           rank_, site.name, site.out, site.in, most);
  }
  void attach_to(Attachment& attachment, const Site& site) {
    const Tensor d = attachment.parameter(site, "d", attachment.ones({rank_}) * initial_);
    const Tensor b = attachment.parameter(site, "b", attachment.zeros({site.out}));
    // The rank may be larger than the matrix (the paper takes 1024 on sides of 768): several edits.
    const int64_t most = std::min(site.in, site.out);
    for (int64_t first = 0; first < rank_; first += most) {
      const int64_t last = std::min(rank_, first + most);
      LowRank edit;
      edit.down = attachment.zeros({last - first, site.in});
      edit.up = attachment.zeros({site.out, last - first});
      edit.dropout = dropout_;
      places_.push_back({&attachment.add(site, edit), d, b, site.in, site.out, first, last});
    }
  }

  std::vector<std::string> sites_;
  int64_t rank_;
  double initial_, dropout_;
  Tensor down_, up_;
  std::vector<Place> places_;
};

}  // namespace

void register_vera(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "vera";
  entry.summary =
      "two vectors a site around one shared pair of frozen random matrices: y += b o B (d o (A x))";
  entry.reference =
      "Kopiczko et al. 2023, \"VeRA: Vector-based Random Matrix Adaptation\", arXiv 2310.11454, "
      "equation 2";
  entry.options = {
      {"sites", "globs", "\"*.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "256", "[1, inf)",
       "inner size of the shared random matrices; may be larger than the sides of a weight"},
      {"d_initial", "number", "0.1", "(-inf, inf)", "initial value of the inner vector d"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the update's input"},
  };
  entry.learning_rate = 1e-2;
  entry.rate_by_width = false;
  entry.tiny = "{rank: 20}";  // more than the sides: several edits a site
  entry.examples = {"{}", "{rank: 1024, sites: \"*.self.[qv]\"}", "{rank: 64, d_initial: 1e-7}"};
  entry.make = [](const Options& options) { return std::make_unique<Vera>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) count += site.out + options.get<int64_t>("rank");
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
