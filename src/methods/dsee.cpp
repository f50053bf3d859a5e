// DSEE: a low-rank update and a few free entries at fixed places of the matrix.
#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "methods/common.h"
#include "methods/decomposition.h"
#include "methods/positions.h"
#include "methods/registry.h"
#include "tensor/matmul.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Rounds of the decomposition after which the places still mean something: more of them let the
/// low-rank part swallow the large entries (on planted matrices, 10 rounds are right from 512 on).
int64_t rounds_for(const Site& site) {
  const int64_t side = std::min(site.in, site.out);
  if (side >= 512) return 10;
  return side > 256 ? 5 : 2;
}

class Dsee final : public Tuner {
 public:
  explicit Dsee(const Options& options)
      : options_(options),
        rank_(options.get<int64_t>("rank")),
        entries_(options.get<int64_t>("num_sparse")),
        scale_(options.get<double>("alpha") / static_cast<double>(rank_)),
        method_(options.get<std::string>("sparse_method")) {
    if (entries_ == 0 && method_ != "auto")
      fail(
          ErrorCode::BadInput,
          "{}: num_sparse is 0, so there are no entries to choose; leave sparse_method out or give "
          "num_sparse",
          options.where("sparse_method"));
  }

  void attach(Attachment& attachment) override {
    for (const Site& site :
         projections(attachment, options_.get<std::vector<std::string>>("sites"), "dsee")) {
      check_rank("dsee", rank_, site);
      // The sparse part first: it changes the weight, and what follows stays beside it.
      if (entries_ > 0) attach_sparse(attachment, site);
      attach_low_rank(attachment, site);
    }
  }

 private:
  void attach_sparse(Attachment& attachment, const Site& site) {
    const int64_t total = site.in * site.out;
    if (entries_ > total)
      fail(ErrorCode::BadInput,
           "dsee: num_sparse {} at {} is more than the {} entries of the matrix [{}, {}]; give at "
           "most that many",
           entries_, site.name, total, site.out, site.in);
    const Tensor positions = attachment.buffer(
        site, "positions", rows_and_columns(places_for(attachment, site), site.in));
    const Tensor values = attachment.parameter(site, "values", attachment.zeros({entries_}));
    attachment.add(site, Reweight{[positions, values, scale = scale_](const Tensor& w) {
                     return add_at(w, positions, values, scale);
                   }});
  }

  void attach_low_rank(Attachment& attachment, const Site& site) {
    LowRank edit;
    edit.down =
        attachment.parameter(site, "down", attachment.normal(site, "down", {rank_, site.in}, 0.02));
    edit.up = attachment.parameter(site, "up", attachment.zeros({site.out, rank_}));
    edit.scale = scale_;
    edit.dropout = options_.get<double>("dropout");
    attachment.add(site, edit);
  }

  Tensor places_for(Attachment& attachment, const Site& site) const {
    const uint64_t key = Stream64(attachment.stream("support")).with(site.name).key();
    if (method_ == "rp") return sample_positions(key, entries_, site.in * site.out);
    const Tensor w = attachment.weight(site).detach();
    if (method_ == "omp") return largest_positions(w, entries_);
    const bool automatic = options_.node("rounds").text() == "auto";
    const LowRankSparse parts =
        greedy_bilateral(w, automatic ? rounds_for(site) : options_.get<int64_t>("rounds"),
                         options_.get<double>("threshold"), options_.get<int64_t>("grow"), key);
    // s is w - u v where that is large, so this takes the largest |s|; where s has fewer entries
    // than asked for, the largest of what is left follow.
    return largest_positions(w - attune::matmul(parts.u, parts.v), entries_);
  }

  Options options_;
  int64_t rank_, entries_;
  double scale_;
  std::string method_;
};

}  // namespace

void register_dsee(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "dsee";
  entry.summary =
      "low-rank update plus free entries at places that a low-rank + sparse decomposition of the "
      "weight chooses";
  entry.reference =
      "Chen et al. 2023, \"DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language "
      "Models\", arXiv 2111.00160, section 3.2";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "16", "[1, inf)", "inner size of the low-rank part"},
      {"alpha", "number", "32", "(0, inf)", "strength: both parts are scaled by alpha / rank"},
      {"num_sparse", "int", "64", "[0, inf)", "free entries of each projection"},
      {"sparse_method", "choice", "auto", "grebsmo|omp|rp",
       "where they are: the sparse part of a decomposition of the weight, its largest entries, or "
       "random places; auto: grebsmo"},
      {"rounds", "int", "auto", "[1, inf)",
       "rounds of the decomposition; auto: 2, 5 above 256 or 10 from 512 features on"},
      {"threshold", "number", "0.01", "(0, inf)", "smallest entry of the sparse part"},
      {"grow", "int", "5", "[1, inf)", "rank that each round of the decomposition adds"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the low-rank part's input"},
  };
  entry.learning_rate = 2e-3;
  entry.tiny = "{rank: 2, alpha: 4, num_sparse: 12}";
  entry.examples = {"{}", "{rank: 8, num_sparse: 64}", "{sparse_method: omp}",
                    "{rounds: 100, num_sparse: 128}"};
  entry.make = [](const Options& options) { return std::make_unique<Dsee>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites)
      count +=
          options.get<int64_t>("rank") * (site.in + site.out) + options.get<int64_t>("num_sparse");
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
