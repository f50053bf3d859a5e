// SHiRA: a fixed sparse choice of a projection's entries trains.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "methods/common.h"
#include "methods/positions.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

class Shira final : public Tuner {
 public:
  explicit Shira(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        rank_(options.get<int64_t>("rank")),
        magnitude_(options.get<std::string>("mask") == "magnitude") {}

  void attach(Attachment& attachment) override {
    for (const Site& site : projections(attachment, sites_, "shira")) attach_to(attachment, site);
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t entries = rank_ * (site.in + site.out), total = site.in * site.out;
    if (entries > total)
      fail(ErrorCode::BadInput,
           "shira: rank {} at {} asks for {} entries of a matrix [{}, {}], which has {}; give a "
           "rank of at most {}",
           rank_, site.name, entries, site.out, site.in, total, total / (site.in + site.out));
    const uint64_t key = Stream64(attachment.stream("mask")).with(site.name).key();
    const Tensor places = magnitude_ ? largest_positions(attachment.weight(site), entries)
                                     : sample_positions(key, entries, total);
    const Tensor positions =
        attachment.buffer(site, "positions", rows_and_columns(places, site.in));
    const Tensor values = attachment.parameter(site, "values", attachment.zeros({entries}));
    attachment.add(site, Reweight{[positions, values](const Tensor& w) {
                     return add_at(w, positions, values);
                   }});
  }

  std::vector<std::string> sites_;
  int64_t rank_;
  bool magnitude_;
};

}  // namespace

void register_shira(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "shira";
  entry.summary = "sparse high-rank update: a fixed choice of a projection's entries trains";
  entry.reference =
      "Bhardwaj et al. 2024, \"Sparse High Rank Adapters\", arXiv 2406.13175 (SHiRA-Rand and "
      "SHiRA-WM)";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "32", "[1, inf)",
       "trained entries: as many as a low-rank update of this rank has, rank * (in + out)"},
      {"mask", "choice", "random", "random|magnitude",
       "which entries: drawn at random, or those of largest magnitude"},
  };
  entry.learning_rate = 1e-3;
  entry.tiny = "{rank: 2}";
  entry.examples = {"{}", "{rank: 8, mask: magnitude}"};
  entry.make = [](const Options& options) { return std::make_unique<Shira>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) count += options.get<int64_t>("rank") * (site.in + site.out);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
