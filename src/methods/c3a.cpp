// C3A: the update of a projection is a grid of circulant blocks, each given by one trained row.
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

int64_t block_for(const Site& site, const Options& options) {
  if (options.node("block_size").text() == "auto") return std::gcd(site.in, site.out);
  return options.get<int64_t>("block_size");
}

/// The matrix of circulant blocks [m b, n b] with first rows `kernels` [m, n, b]: entry (t, j) of a
/// block is kernel[(j - t) mod b].
Tensor circulant(const Tensor& kernels) {
  const int64_t m = kernels.size(0), n = kernels.size(1), b = kernels.size(2);
  const Tensor step = at::arange(b, at::kLong);
  const Tensor turn = (step.reshape({1, b}) - step.reshape({b, 1})).remainder(b).reshape({-1});
  return kernels.index_select(2, turn)
      .reshape({m, n, b, b})
      .permute({0, 2, 1, 3})
      .reshape({m * b, n * b});
}

class C3a final : public Tuner {
 public:
  explicit C3a(const Options& options) : options_(options) {}

  void attach(Attachment& attachment) override {
    for (const Site& site :
         projections(attachment, options_.get<std::vector<std::string>>("sites"), "c3a"))
      attach_to(attachment, site);
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    const int64_t block = block_for(site, options_);
    if (site.in % block != 0 || site.out % block != 0)
      fail(ErrorCode::BadInput,
           "c3a: block_size {} does not divide both sides of {} [{}, {}]; give a divisor of {}, or "
           "auto for that number",
           block, site.name, site.out, site.in, std::gcd(site.in, site.out));
    const Tensor kernels = attachment.parameter(
        site, "kernels", initial(attachment, site, {site.out / block, site.in / block, block}));
    attachment.add(site, Reweight{[kernels](const Tensor& w) {
                     return w + circulant(kernels) / static_cast<double>(w.size(1));
                   }});
  }

  Tensor initial(Attachment& attachment, const Site& site,
                 const std::vector<int64_t>& shape) const {
    const std::string init = options_.get<std::string>("init");
    if (init == "zeros") return attachment.zeros(shape);
    if (init == "gaussian") return attachment.normal(site, "kernels", shape, 1);
    const double bound = init == "kaiming_uniform"
                             ? kaiming_bound(site.in)
                             : std::sqrt(6.0 / static_cast<double>(site.in + site.out));
    return attachment.uniform(site, "kernels", shape, bound);
  }

  Options options_;
};

}  // namespace

void register_c3a(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "c3a";
  entry.summary = "update of circulant blocks: W + C / in, one trained row a block";
  entry.reference =
      "Chen et al. 2024, \"Parameter-Efficient Fine-Tuning via Circular Convolution\", arXiv "
      "2407.19342";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"block_size", "int", "auto", "[1, inf)",
       "rows of one circulant block, a divisor of inputs and outputs; auto: their greatest"},
      {"init", "choice", "xavier_uniform", "xavier_uniform|kaiming_uniform|gaussian|zeros",
       "initial rows; all but zeros change the output at once"},
  };
  entry.learning_rate = 3e-2;
  entry.tiny = "{sites: \"*.self.[qkv]\", block_size: 4}";
  entry.identity_at_start = false;
  entry.examples = {"{}", "{block_size: 128}", "{init: zeros}"};
  entry.make = [](const Options& options) { return std::make_unique<C3a>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    int64_t count = 0;
    for (const Site& site : sites) count += site.in * site.out / block_for(site, options);
    return count;
  };
  registry.add(std::move(entry));
}

}  // namespace attune
