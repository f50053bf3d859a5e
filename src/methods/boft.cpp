// BOFT: the inputs of frozen projections turn by a product of butterfly factors, each of them a
// permuted block-diagonal rotation.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/rotation.h"
#include "tensor/rows.h"
#include "tensor/torch.h"

namespace attune {
namespace {

struct BoftSizes {
  int64_t block = 0, blocks = 0;
  int64_t upper() const { return block * (block - 1) / 2; }
};

constexpr int64_t kBoftBlock = 4;  // unless stated

BoftSizes boft_sizes(int64_t inputs, const Options& options) {
  const int64_t blocks = options.get<int64_t>("blocks");
  if (blocks == 0) {
    const int64_t block = options.get<int64_t>("block_size");
    return {block, inputs / block};
  }
  return {inputs / blocks, blocks};
}

/// Where factor `factor` finds its inputs: in groups of block * 2^factor features, chunks of half a
/// block are dealt out, the even ones first. Factor 0 would take them as they stand.
std::vector<int64_t> butterfly(int64_t inputs, int64_t block, int64_t factor) {
  std::vector<int64_t> order;
  const int64_t chunk = block / 2, chunks = int64_t{2} << factor, group = chunk * chunks;
  for (int64_t begin = 0; begin < inputs; begin += group)
    for (const int64_t parity : {0, 1})
      for (int64_t c = parity; c < chunks; c += 2)
        for (int64_t i = 0; i < chunk; ++i) order.push_back(begin + c * chunk + i);
  return order;
}

/// One projection's rotation R = B_m ... B_1, B_i = P_i D_i P_i^T.
struct Rotation {
  Tensor upper;                          // [factors, blocks, b (b - 1) / 2]
  Tensor scale;                          // [out]
  std::vector<Tensor> forward, inverse;  // by factor: columns taken before and after D_i
  Tensor dropped;  // [factors, blocks, 1, 1]: 1 where a block is the identity now; undefined: none
  uint64_t key = 0;
  int64_t block = 0;
};

/// diag(s) W R^T, the bias left as it is.
Tensor rotated(const Rotation& rotation, const Tensor& weight) {
  const Tensor skew = skew_symmetric(rotation.upper, rotation.block);
  const std::vector<int64_t> shape{rotation.upper.size(0), rotation.upper.size(1), rotation.block,
                                   rotation.block};
  Tensor blocks = cayley(skew).reshape(shape);
  if (rotation.dropped.defined()) {
    const Tensor identity = at::eye(rotation.block, blocks.options());
    blocks = blocks * (1 - rotation.dropped) + identity * rotation.dropped;
  }
  Tensor w = weight;
  for (size_t i = 0; i < rotation.forward.size(); ++i) {
    if (i > 0) w = w.index_select(1, rotation.inverse[i]);
    w = rotate_inputs(w, blocks.select(0, static_cast<int64_t>(i)));
    if (i > 0) w = w.index_select(1, rotation.forward[i]);
  }
  return w * rotation.scale.reshape({-1, 1});
}

class Boft final : public Tuner {
 public:
  explicit Boft(const Options& options)
      : options_(options),
        factors_(options.get<int64_t>("factors")),
        dropout_(options.get<double>("dropout")) {
    if (options.get<int64_t>("blocks") != 0 && options.get<int64_t>("block_size") != kBoftBlock)
      fail(ErrorCode::BadInput,
           "{}: boft takes blocks or block_size, not both: their product is the number of inputs",
           options.where("blocks"));
  }

  void attach(Attachment& attachment) override {
    const std::vector<Site> sites =
        projections(attachment, options_.get<std::vector<std::string>>("sites"), "boft");
    rotations_.reserve(sites.size());  // the closures hold references
    for (const Site& site : sites) attach_to(attachment, site);
  }

  // Multiplicative dropout: in one factor drawn each step, a share of the blocks is the identity.
  void prepare(const Pass& pass) override {
    if (dropout_ <= 0) return;
    for (Rotation& rotation : rotations_)
      rotation.dropped = pass.training ? drawn(rotation, pass) : Tensor();
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const BoftSizes sizes = boft_sizes(site.in, options_);
    check(site, sizes);
    Rotation rotation;
    rotation.block = sizes.block;
    rotation.key = Stream64(attachment.stream("dropout")).with(site.name).key();
    // Differs: PEFT trains all b^2 entries of a block, of which only the skew-symmetric part acts;
    // here the (b^2 - b) / 2 that the paper counts are the parameters.
    rotation.upper = attachment.parameter(
        site, "rotation", attachment.zeros({factors_, sizes.blocks, sizes.upper()}));
    // No weight decay: it would pull the outputs towards zero.
    rotation.scale =
        attachment.parameter(site, "scale", attachment.ones({site.out}), Learn{1, 0, {}});
    rotation.forward.resize(1);  // the first factor permutes nothing
    rotation.inverse.resize(1);
    for (int64_t i = 1; i < factors_; ++i) {
      const std::vector<int64_t> order = butterfly(site.in, sizes.block, i);
      std::vector<int64_t> inverse(order.size());
      for (size_t at = 0; at < order.size(); ++at)
        inverse[static_cast<size_t>(order[at])] = static_cast<int64_t>(at);
      rotation.forward.push_back(int64_tensor(order));
      rotation.inverse.push_back(int64_tensor(inverse));
    }
    rotations_.push_back(std::move(rotation));
    attachment.add(site, Reweight{[this, at = rotations_.size() - 1](const Tensor& w) {
                     return rotated(rotations_[at], w);
                   }});
  }

  /// Errors: BadInput when the inputs of the site do not split as asked.
  void check(const Site& site, const BoftSizes& sizes) const {
    if (sizes.block < 2 || sizes.block * sizes.blocks != site.in)
      fail(ErrorCode::BadInput,
           "boft: the {} inputs of {} do not split into blocks of {} rows (at least 2); give a "
           "block_size that divides them",
           site.in, site.name, sizes.block);
    if (factors_ == 1) return;
    const int64_t widest = sizes.block << std::min<int64_t>(factors_ - 1, 40);
    if (sizes.block % 2 != 0 || site.in % widest != 0)
      fail(ErrorCode::BadInput,
           "boft: {} butterfly factors over blocks of {} rows need an even block size and inputs "
           "that {} divides; {} has {}. Give fewer factors or another block_size",
           factors_, sizes.block, widest, site.name, site.in);
  }

  Tensor drawn(const Rotation& rotation, const Pass& pass) const {
    const Stream64 stream =
        Stream64(mix(pass.seed, rotation.key)).with(static_cast<uint64_t>(pass.step));
    const int64_t blocks = rotation.upper.size(1);
    const int64_t count = static_cast<int64_t>(dropout_ * static_cast<double>(blocks));
    Tensor result = at::zeros({factors_, blocks, 1, 1}, rotation.upper.options());
    const int64_t factor = static_cast<int64_t>(stream.below(0, static_cast<uint64_t>(factors_)));
    const std::vector<int64_t> order = stream.with("blocks").permutation(blocks);
    for (int64_t i = 0; i < count; ++i)
      result.select(0, factor).select(0, order[static_cast<size_t>(i)]).fill_(1);
    return result;
  }

  Options options_;
  int64_t factors_;
  double dropout_;
  std::vector<Rotation> rotations_;
};

}  // namespace

void register_boft(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "boft";
  entry.summary =
      "butterfly rotation of a projection's inputs and a scale of its outputs: W <- s W R^T";
  entry.reference =
      "Liu et al. 2024, \"Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization\", "
      "arXiv 2311.06243";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "", "projections that turn (globs over site names)"},
      {"block_size", "int", std::to_string(kBoftBlock), "[2, inf)",
       "rows of one block; must divide the inputs"},
      {"blocks", "int", "0", "[0, inf)",
       "number of blocks, in place of block_size; 0: as many as the inputs hold"},
      {"factors", "int", "1", "[1, inf)",
       "butterfly factors; with m of them every output reads block_size * 2^(m - 1) inputs"},
      {"dropout", "number", "0", "[0, 1)",
       "share of the blocks of one random factor that is the identity, each training step"},
  };
  entry.learning_rate = 4e-3;
  entry.tiny = "{sites: \"*.self.[qkv]\", block_size: 4, factors: 2}";
  entry.examples = {"{}", "{block_size: 8, factors: 3}", "{blocks: 32, dropout: 0.1}"};
  entry.make = [](const Options& options) { return std::make_unique<Boft>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) {
      const BoftSizes sizes = boft_sizes(site.in, options);
      count += options.get<int64_t>("factors") * sizes.blocks * sizes.upper() + site.out;
    }
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
