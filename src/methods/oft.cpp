// OFT: the inputs of frozen projections turn by a trained block-diagonal rotation.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "methods/batched.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "methods/rotation.h"
#include "tensor/autograd.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// The divisor of `inputs` nearest to `wanted`, the smaller of two equally near, as PEFT adjusts.
int64_t nearest_divisor(int64_t inputs, int64_t wanted) {
  if (wanted >= inputs) return inputs;
  int64_t lower = wanted, higher = wanted;
  while (inputs % lower != 0) --lower;
  while (inputs % higher != 0) ++higher;
  return wanted - lower <= higher - wanted ? lower : higher;
}

/// OftSizes at a projection with `inputs` features: `blocks` matrices of `block` rows.
struct OftSizes {
  int64_t block = 0, blocks = 0;
  int64_t upper() const { return block * (block - 1) / 2; }
};

constexpr int64_t kOftBlock = 32;  // unless stated

OftSizes oft_sizes(int64_t inputs, const Options& options) {
  const int64_t blocks = options.get<int64_t>("blocks");
  if (blocks == 0) {
    const int64_t block = nearest_divisor(inputs, options.get<int64_t>("block_size"));
    return {block, inputs / block};
  }
  const int64_t used = nearest_divisor(inputs, blocks);
  return {inputs / used, used};
}

/// The factor that brings the Frobenius norm of each generator down to `limit`; 1 for those within.
/// upper [n, pairs]; result [n, 1], without gradient.
Tensor shrink(const Tensor& upper, double limit) {
  const Tensor norm = upper.detach().square().sum(1, true).mul(2).sqrt();
  return at::where(norm <= limit, at::ones_like(norm), limit / norm);
}

/// The Cayley transform by its Neumann series, I + 2Q + 2Q^2 + ... + Q^k with k = terms - 1.
/// Differs: (I + Q) (I - Q)^-1, the transpose of the exact form, and with 3 terms the series of 4:
/// PEFT's definitions, so that its adapters mean the same here.
Tensor cayley_neumann(const Tensor& skew, int64_t terms) {
  const Tensor identity = at::eye(skew.size(1), skew.options());
  if (terms == 2) return identity + skew * 2.0;
  Tensor power = batched_matmul(skew, skew);
  Tensor sum = identity + skew * 2.0 + power * 2.0;
  for (int64_t i = 3; i < terms - 1; ++i) {
    power = batched_matmul(power, skew);
    sum = sum + power * 2.0;
  }
  return sum + batched_matmul(power, skew);
}

class Oft final : public Tuner {
 public:
  explicit Oft(const Options& options)
      : options_(options),
        coft_(options.get<bool>("coft")),
        eps_(options.get<double>("eps")),
        terms_(options.get<int64_t>("neumann_terms")) {
    if (options.get<int64_t>("blocks") != 0 && options.get<int64_t>("block_size") != kOftBlock)
      fail(ErrorCode::BadInput,
           "{}: oft takes blocks or block_size, not both: their product is the number of inputs",
           options.where("blocks"));
    if (terms_ == 1)
      fail(ErrorCode::BadInput,
           "{}: a Neumann series of 1 term is the identity and trains nothing; give 2 or more, or "
           "0 for the exact transform",
           options.where("neumann_terms"));
  }

  void attach(Attachment& attachment) override {
    for (const Site& site :
         projections(attachment, options_.get<std::vector<std::string>>("sites"), "oft"))
      attach_to(attachment, site);
  }

  // The constrained variant projects after every step; a generator that was loaded or set outside
  // is projected where it is used.
  void after_step(const Pass&) override {
    if (!coft_) return;
    at::NoGradGuard no_grad;
    for (const Tensor& upper : generators_) {
      upper.detach().mul_(shrink(upper, limit(upper)));
      mark_changed(upper);
    }
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const OftSizes sizes = oft_sizes(site.in, options_);
    if (sizes.block < 2)
      fail(ErrorCode::BadInput,
           "oft: at {} the blocks have 1 row, which leaves nothing to turn; give fewer blocks than "
           "its {} inputs, or block_size of at least 2",
           site.name, site.in);
    if (options_.get<int64_t>("blocks") == 0 && sizes.block != options_.get<int64_t>("block_size"))
      log_info("oft: block_size {} does not divide the {} inputs of {}; {} is used there",
               options_.get<int64_t>("block_size"), site.in, site.name, sizes.block);
    const int64_t count = options_.get<bool>("block_share") ? 1 : sizes.blocks;
    const Tensor upper =
        attachment.parameter(site, "rotation", attachment.zeros({count, sizes.upper()}));
    generators_.push_back(upper);
    attachment.add(site, Reweight{[this, upper, block = sizes.block](const Tensor& w) {
                     return rotate_inputs(w, rotation(upper, block));
                   }});
  }

  /// How far a generator may be from zero: the strength is spread over the blocks.
  double limit(const Tensor& upper) const {
    return eps_ / std::sqrt(static_cast<double>(upper.size(0)));
  }

  Tensor rotation(const Tensor& upper, int64_t block) const {
    const Tensor used = coft_ ? upper * shrink(upper, limit(upper)) : upper;
    const Tensor skew = skew_symmetric(used, block);
    return terms_ == 0 ? cayley(skew) : cayley_neumann(skew, terms_);
  }

  Options options_;
  bool coft_;
  double eps_;
  int64_t terms_;
  std::vector<Tensor> generators_;
};

}  // namespace

void register_oft(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "oft";
  entry.summary = "block-diagonal rotation of a projection's inputs: W <- W R^T, R orthogonal";
  entry.reference =
      "Qiu et al. 2023, \"Controlling Text-to-Image Diffusion by Orthogonal Finetuning\", arXiv "
      "2306.07280; Qiu et al. 2025, \"Orthogonal Finetuning Made Scalable\", arXiv 2506.19847 "
      "(Cayley-Neumann)";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "", "projections that turn (globs over site names)"},
      {"block_size", "int", std::to_string(kOftBlock), "[2, inf)",
       "rows of one rotation; where it does not divide the inputs, the nearest divisor"},
      {"blocks", "int", "0", "[0, inf)",
       "number of rotations, in place of block_size; 0: as many as the inputs hold"},
      {"block_share", "bool", "false", "", "one rotation for all blocks of a projection"},
      {"coft", "bool", "false", "", "constrained: keep every generator within eps of zero"},
      {"eps", "number", "6e-5", "(0, inf)",
       "the constraint: largest Frobenius norm of the generators, over the root of their number"},
      {"neumann_terms", "int", "5", "[0, inf)",
       "terms of the Neumann series for the Cayley transform; 0: exact, by a linear solve"},
  };
  entry.learning_rate = 1e-3;
  entry.tiny = "{sites: \"*.self.[qkv]\", block_size: 8}";
  entry.examples = {"{}", "{block_size: 64, neumann_terms: 0}", "{blocks: 8, block_share: true}",
                    "{coft: true, eps: 1e-3}"};
  entry.make = [](const Options& options) { return std::make_unique<Oft>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) {
      const OftSizes sizes = oft_sizes(site.in, options);
      count += (options.get<bool>("block_share") ? 1 : sizes.blocks) * sizes.upper();
    }
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
