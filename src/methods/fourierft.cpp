// FourierFT: the update of a projection is the inverse Fourier transform of a few trained entries.
#include <vector>

#include "base/error.h"
#include "methods/common.h"
#include "methods/registry.h"
#include "tensor/torch.h"

namespace attune {
namespace {

/// Real part of the two-dimensional inverse transform of a matrix [out, in] that is zero but for
/// `values` [n] at distinct `rows`, `cols` [n].
/// The real part belongs to the Hermitian part of the spectrum, (F[u, v] + F[-u, -v]) / 2, of which
/// half the columns decide the rest: a real transform, half the work of a complex one.
Tensor inverse_transform(const Tensor& values, const Tensor& rows, const Tensor& cols, int64_t out,
                         int64_t in) {
  const int64_t kept = in / 2 + 1;
  const Tensor u = at::cat({rows, (out - rows).remainder(out)});
  const Tensor v = at::cat({cols, (in - cols).remainder(in)});
  const Tensor use = (v < kept).nonzero().reshape({-1});
  const Tensor halves = at::cat({values, values}).index_select(0, use) * 0.5;
  const Tensor places = (u * kept + v).index_select(0, use);
  const Tensor spectrum =
      at::zeros({out * kept}, values.options()).index_add(0, places, halves).reshape({out, kept});
  const std::vector<int64_t> shape{out, in};
  return at::fft_irfft2(at::complex(spectrum, at::zeros_like(spectrum)), shape);
}

class FourierFt final : public Tuner {
 public:
  explicit FourierFt(const Options& options)
      : sites_(options.get<std::vector<std::string>>("sites")),
        frequencies_(options.get<int64_t>("frequencies")),
        scaling_(options.get<double>("scaling")),
        entry_seed_(options.get<int64_t>("entry_seed")),
        zeros_(options.get<std::string>("init") == "zeros") {}

  void attach(Attachment& attachment) override {
    for (const Site& site : projections(attachment, sites_, "fourierft"))
      attach_to(attachment, site);
  }

 private:
  void attach_to(Attachment& attachment, const Site& site) {
    if (frequencies_ > site.in * site.out)
      fail(ErrorCode::BadInput,
           "fourierft: {} frequencies at {} are more than the {} entries of the matrix [{}, {}]; "
           "give at most that many",
           frequencies_, site.name, site.in * site.out, site.out, site.in);
    const Tensor spectrum =
        attachment.parameter(site, "spectrum",
                             zeros_ ? attachment.zeros({frequencies_})
                                    : attachment.normal(site, "spectrum", {frequencies_}, 1));
    const Tensor positions = attachment.buffer(site, "positions", positions_for(site).to(at::kInt));
    attachment.add(site, Reweight{[spectrum, positions, scaling = scaling_](const Tensor& w) {
                     const Tensor places = positions.to(at::kLong);
                     return w + inverse_transform(spectrum, places.select(0, 0),
                                                  places.select(0, 1), w.size(0), w.size(1)) *
                                    scaling;
                   }});
  }

  /// Rows and columns [2, n] of the trained entries: the same at all matrices of one shape.
  /// Drawn by LibTorch's generator rather than ours, because PEFT's files name only the seed.
  Tensor positions_for(const Site& site) const {
    const at::Generator generator =
        at::detail::createCPUGenerator(static_cast<uint64_t>(entry_seed_));
    const Tensor flat = at::randperm(site.out * site.in, generator).slice(0, 0, frequencies_);
    return at::stack({flat.floor_divide(site.in), flat.remainder(site.in)});
  }

  std::vector<std::string> sites_;
  int64_t frequencies_;
  double scaling_;
  int64_t entry_seed_;
  bool zeros_;
};

}  // namespace

void register_fourierft(Registry<Tuner>& registry) {
  Entry<Tuner> entry;
  entry.name = "fourierft";
  entry.summary = "update by the inverse Fourier transform of a few trained spectral entries";
  entry.reference =
      "Gao et al. 2024, \"Parameter-Efficient Fine-Tuning with Discrete Fourier Transform\", arXiv "
      "2405.03003";
  entry.options = {
      {"sites", "globs", "\"*.self.[qv]\"", "",
       "projections that get an update (globs over site names)"},
      {"frequencies", "int", "1000", "[1, inf)", "trained entries of the spectrum, a projection"},
      {"scaling", "number", "150", "(0, inf)", "strength of the update"},
      {"entry_seed", "int", "777", "[0, inf)",
       "seed of the entries' positions, the same for all projections of one shape"},
      {"init", "choice", "normal", "normal|zeros",
       "initial entries: standard normal (the output changes at once) or zero"},
  };
  entry.learning_rate = 1e-2;
  entry.tiny = "{sites: \"*.self.[qkv]\", frequencies: 40, scaling: 10}";
  entry.identity_at_start = false;
  entry.examples = {"{}", "{frequencies: 3000, scaling: 300}", "{init: zeros}"};
  entry.make = [](const Options& options) { return std::make_unique<FourierFt>(options); };
  entry.count = [](const std::vector<Site>& sites, const Options& options) {
    return options.get<int64_t>("frequencies") * static_cast<int64_t>(sites.size());
  };
  registry.add(std::move(entry));
}

}  // namespace attune
