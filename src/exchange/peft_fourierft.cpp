// FOURIERFT: the inverse Fourier transform of a few trained entries (ours: fourierft).
#include "base/text.h"
#include "exchange/peft_type.h"
#include "tensor/torch.h"

namespace attune {
namespace {

std::vector<PeftTuner> load_fourierft(PeftSource& source) {
  const PeftConfig& config = source.config;
  // The entries' positions are not in the file; the method draws them from the seed as PEFT does.
  if (config.json().contains("random_loc_seed") && !config.given("random_loc_seed"))
    config.refuse("random_loc_seed",
                  "the positions of the entries were drawn without a seed and are not in the file");
  std::vector<PeftTuner> tuners;
  const ModuleGroups groups = source.grouped("n_frequency", 1000);
  for (const std::pair<const int64_t, std::vector<const PeftModule*>>& group : groups) {
    const int64_t frequencies = group.first;
    PeftTuner tuner{"fourierft", Json{{"sites", Json::array()},
                                      {"frequencies", frequencies},
                                      {"scaling", plain_number(config.number("scaling", 150))},
                                      {"entry_seed", config.integer("random_loc_seed", 777)}}};
    for (const PeftModule* module : group.second) {
      tuner.act_at(module->site);
      tuner.set(module->site, "spectrum",
                source.part(*module, "fourierft_spectrum", {frequencies}));
    }
    tuners.push_back(std::move(tuner));
  }
  return tuners;
}

/// Rows and columns [2, n] that PEFT draws for a matrix.
Tensor positions_of(int64_t seed, const Site& site, int64_t frequencies) {
  const at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  const Tensor flat = at::randperm(site.out * site.in, generator).slice(0, 0, frequencies);
  return at::stack({flat.floor_divide(site.in), flat.remainder(site.in)});
}

PeftPiece save_fourierft(const PeftView& view) {
  PeftPiece piece{"FOURIERFT"};
  const Json& options = view.options();
  piece.config = Json{{"scaling", options.at("scaling")},
                      {"random_loc_seed", options.at("entry_seed")},
                      {"init_weights", false},
                      {"fan_in_fan_out", false}};
  for (const Site& site : view.sites()) {
    const Tensor spectrum = view.tensor(site, "spectrum");
    const Tensor drawn =
        positions_of(options.at("entry_seed").get<int64_t>(), site, spectrum.size(0));
    if (!at::equal(drawn, view.tensor(site, "positions").to(at::kLong)))
      cannot_export(view, "FOURIERFT",
                    format("the trained entries at {} are not those that PEFT draws from the seed "
                           "{}, and it saves no others",
                           site.name, options.at("entry_seed").dump()));
    piece.updates.push_back(
        {site, Json{{"n_frequency", spectrum.size(0)}}, {{"fourierft_spectrum", spectrum}}});
  }
  return piece;
}

}  // namespace

PeftType peft_fourierft() {
  PeftType type;
  type.name = "FOURIERFT";
  type.methods = {"fourierft"};
  type.fields = {"n_frequency", "scaling", "random_loc_seed", "init_weights"};
  type.parts = {"fourierft_spectrum"};
  type.patterns = {{"n_frequency", "n_frequency_pattern"}};
  type.match = PeftConfig::Match::Tail;
  type.bias_only = "fourier_only";
  type.load = load_fourierft;
  type.save = save_fourierft;
  return type;
}

}  // namespace attune
