// MiSS: one small matrix serves every shard of a projection's inputs.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "methods/batched.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// [rank, in] with a one at (j mod rank, j): its product with x sums the shards of x, the last one
/// filled up with zeros when rank does not divide the inputs.
Tensor shard_sum(int64_t rank, const Tensor& like, int64_t in) {
  const int64_t shards = (in + rank - 1) / rank;
  return at::eye(rank, like.options()).repeat({1, shards}).slice(1, 0, in).contiguous();
}

/// W + (W_oi + I) B_o for every square block W_oi: rows o of W against block o.
/// Shapes: weight [n r, m r], blocks [n, r, r].
Tensor bat(const Tensor& weight, const Tensor& blocks) {
  const int64_t n = blocks.size(0), r = blocks.size(1);
  // Rows o of W are [r, m, r]: row in the block, block, column; the identity repeats in each block.
  const Tensor identity = at::eye(r, weight.options()).reshape({1, r, 1, r});
  const Tensor shifted = weight.reshape({n, r, -1, r}) + identity;
  return weight + batched_matmul(shifted.reshape({n, -1, r}), blocks).reshape(weight.sizes());
}

class Miss final : public Tuner {
 public:
  explicit Miss(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        variant_(options.get<std::string>("variant")),
        rank_(options.get<int64_t>("rank")),
        mini_rank_(options.get<int64_t>("mini_rank")),
        dropout_(options.get<double>("dropout")) {
    if (variant_ == "bat" && dropout_ > 0)
      fail(ErrorCode::BadInput,
           "{}: variant bat changes the weight itself, so its input has no dropout; use 0 or "
           "another variant",
           options.where("dropout"));
    if (variant_ != "mini" && mini_rank_ != 1)
      fail(ErrorCode::BadInput, "{}: only variant mini reads mini_rank; this one is {}",
           options.where("mini_rank"), variant_);
  }

  void attach(Attachment& attachment) override {
    for (const Site& site : projections(attachment, sites_, "miss")) {
      check_rank("miss", rank_, site);
      if (variant_ == "bat") {
        attach_bat(attachment, site);
      } else {
        attach_sum(attachment, site);
      }
    }
    prepare({});
  }

  void prepare(const Pass&) override {
    for (const Mini& mini : minis_) {
      LowRank& low = std::get<LowRank>(*mini.edit);
      low.up = mini.block.repeat({mini.out / mini_rank_, 1});
    }
  }

 private:
  struct Mini {
    Edit* edit;
    Tensor block;  // [mini_rank, rank]
    int64_t out;
  };

  void attach_bat(Attachment& attachment, const Site& site) {
    if (site.in % rank_ != 0 || site.out % rank_ != 0)
      fail(
          ErrorCode::BadInput,
          "miss: variant bat cuts {} [{}, {}] into square blocks of {} rows, which does not divide "
          "both sides; give a rank that does, or another variant",
          site.name, site.out, site.in, rank_);
    const Tensor blocks =
        attachment.parameter(site, "blocks", attachment.zeros({site.out / rank_, rank_, rank_}));
    attachment.add(site, Reweight{[blocks](const Tensor& w) { return bat(w, blocks); }});
  }

  /// y += sum_of_shards(x) up^T: a low-rank update whose down is fixed.
  void attach_sum(Attachment& attachment, const Site& site) {
    const bool mini = variant_ == "mini";
    if (mini && site.out % mini_rank_ != 0)
      fail(ErrorCode::BadInput,
           "miss: mini_rank {} does not divide the {} outputs of {}; give a divisor", mini_rank_,
           site.out, site.name);
    const Tensor up =
        attachment.parameter(site, "up", attachment.zeros({mini ? mini_rank_ : site.out, rank_}));
    LowRank edit;
    edit.down = shard_sum(rank_, up, site.in);
    edit.up = up;
    edit.dropout = dropout_;
    Edit& added = attachment.add(site, edit);
    if (mini) minis_.push_back({&added, up, site.out});
  }

  std::vector<std::string> sites_;
  std::string variant_;
  int64_t rank_, mini_rank_;
  double dropout_;
  std::vector<Mini> minis_;
};

}  // namespace

void register_miss(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "miss";
  entry.summary = "shard sharing: y += sum over shards of x, times one small trained matrix";
  entry.reference =
      "Kang and Yin 2024, \"MiSS: Balancing LoRA Performance and Efficiency with Simple Shard "
      "Sharing\" (first as Bone; its BAT is variant bat), arXiv 2409.15371";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"rank", "int", "64", "[1, inf)", "features of one shard"},
      {"variant", "choice", "balance", "balance|bat|mini",
       "balance: one column an output; mini: mini_rank columns repeat; bat: square blocks, W + (W "
       "+ "
       "I) B in each"},
      {"mini_rank", "int", "1", "[1, inf)",
       "columns of variant mini, which alone reads it; must divide the outputs"},
      {"dropout", "number", "0", "[0, 1)", "dropout on the update's input"},
  };
  entry.learning_rate = 1e-3;
  entry.tiny = "{rank: 4}";
  entry.examples = {"{}", "{rank: 64, variant: bat}", "{rank: 32, variant: mini, mini_rank: 16}"};
  entry.make = [](const Options& options) { return std::make_unique<Miss>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    const int64_t rank = options.get<int64_t>("rank");
    const bool mini = options.get<std::string>("variant") == "mini";
    int64_t count = 0;
    for (const Site& site : sites)
      count += rank * (mini ? options.get<int64_t>("mini_rank") : site.out);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
